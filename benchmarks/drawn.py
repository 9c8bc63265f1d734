"""Weights drawn by name from one generator, so that whoever runs other code can draw the same."""

import numpy as np
import torch


def filled(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """float32 values for every key: matrices keep the size of what goes through them, norms lie about 1."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        drawn = generator.standard_normal(shape, dtype=np.float32)
        if "norm" in name.lower() and name.endswith("weight"):
            drawn = 1 + 0.2 * drawn
        elif len(shape) < 2:
            drawn = 0.2 * drawn
        elif not name.endswith("bias_table"):
            drawn = 1.5 * drawn / np.sqrt(np.float32(np.prod(shape[1:])))
        weights[name] = torch.from_numpy(np.asarray(drawn, np.float32))
    return weights
