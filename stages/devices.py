"""What an error says about the device that a model runs on."""

import sys


def out_of_memory(error: Exception) -> bool:
    """The model asked for more memory than there is, on the GPU or the CPU: less work at once may fit."""
    torch = sys.modules.get("torch")
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def device_lost(error: Exception) -> bool:
    """After such an error every later call of this process fails too."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.AcceleratorError)
