"""What a device can do at most, to hold a model's rate against."""

import statistics
import time

PEAK_TFLOPS = {"B200": 2250, "H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10": 125}
"""Dense bfloat16 rates that the makers state (SXM boards), by a word of the device's name; first hit wins."""

_SIDES = (256, 512, 1024, 2048)
_GPU_SIDE = 8192
_LONG_S = 0.05
"""A product that takes this long on a CPU is as good as a larger one; without bfloat16 instructions torch takes minutes
over one of 2048."""


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
    if device == "cuda":
        return 2 * _GPU_SIDE**3 / _product_seconds(device, precision, _GPU_SIDE)
    for side in _SIDES:
        seconds = _product_seconds(device, precision, side)
        if seconds > _LONG_S:
            break
    return 2 * side**3 / seconds


def _product_seconds(device: str, precision: str, side: int) -> float:
    """Median seconds of one product."""
    import torch

    gpu = device == "cuda"
    a, b = (torch.randn((side, side), device=device).to(getattr(torch, precision)) for _ in range(2))
    times = []
    for _ in range(6):
        begun = time.perf_counter() if gpu else time.process_time()
        product = a @ b
        if gpu:
            product[0, 0].item()
        times.append((time.perf_counter() if gpu else time.process_time()) - begun)
    return statistics.median(times[1:])
