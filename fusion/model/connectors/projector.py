"""The multi-layer perceptron between fused features and the language model."""

from torch import nn


def projector(width: int, out: int, depth: int = 2) -> nn.Sequential:
    """Linear(width, out), then depth - 1 times GELU and Linear(out, out): LLaVA's `mlp{depth}x_gelu`
    (haotian-liu/LLaVA `llava/model/multimodal_projector/builder.py`)."""
    layers: list[nn.Module] = [nn.Linear(width, out)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(out, out)]
    return nn.Sequential(*layers)
