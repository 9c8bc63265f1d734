"""Attention that trains fast on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def product_attention() -> Iterator[None]:
    """Within it, scaled dot product attention is two matrix products and a softmax, all in the inputs' own type.

    PyTorch's fused kernel for CPUs (2.13) takes eight times as long to go back in bf16, and its products widen bf16
    to fp32 unless they are told not to. No other device is affected by much: sequences here are a hundred tokens long.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    backends = torch.backends.cuda  # the switch is named after CUDA, and every device's products obey it
    before = backends.fp16_bf16_reduction_math_sdp_allowed()
    backends.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        backends.allow_fp16_bf16_reduction_math_sdp(before)
