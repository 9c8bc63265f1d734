"""What a device can do at most, to hold a model's rate against."""

import statistics
import time

PEAK_TFLOPS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125}
"""Dense bfloat16 rates that the makers state (SXM boards), by a word of the device's name; first hit wins."""

_GEMM = 2048


def device_name(device: str) -> str:
    """The GPU's own name, or `cpu`."""
    import torch

    return str(torch.cuda.get_device_name()) if device == "cuda" else "cpu"


def peak(device: str, precision: str) -> float | None:
    """FLOP/s that the maker states, where it is known here."""
    name = device_name(device)
    rates = (rate for word, rate in PEAK_TFLOPS.items() if word in name)
    return next((rate * 1e12 for rate in rates if precision == "bfloat16"), None)


def gemm_rate(device: str, precision: str) -> float:
    """FLOP/s of a square matrix product in one precision: CPU time on a CPU."""
    import torch

    gpu = device == "cuda"
    n = 4 * _GEMM if gpu else _GEMM
    a, b = (torch.randn((n, n), device=device).to(getattr(torch, precision)) for _ in range(2))
    times = []
    for _ in range(6):
        begun = time.perf_counter() if gpu else time.process_time()
        product = a @ b
        if gpu:
            product[0, 0].item()
        times.append((time.perf_counter() if gpu else time.process_time()) - begun)
    return 2 * n**3 / statistics.median(times[1:])
