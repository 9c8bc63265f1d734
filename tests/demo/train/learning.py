"""What every recipe's loss must do."""

from typing import Any

import numpy as np
import torch

from demo.train.base import Recipe
from demo.train.pool import ScenePool


def autocast(step: int, steps: int) -> torch.autocast:
    """bfloat16, which the loop trains in, for the first step, the one in the middle and the last; else float32.

    Processors without instructions for bfloat16 take eight times as long with it.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=step in (0, steps // 2, steps - 1))


def every_part_falls_and_reaches_every_weight(recipe: Recipe[Any], scenes: ScenePool, steps: int) -> None:
    """A few steps on four scenes lower each part of the loss, and the first one has a gradient for each weight."""
    torch.manual_seed(0)
    model = recipe.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    curve = []
    for step in range(steps):
        with autocast(step, steps):
            loss, parts = recipe.loss(model, scenes, np.arange(4), np.random.default_rng(step), 0.0)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        curve.append(parts)
    for name in curve[0]:
        assert np.mean([parts[name] for parts in curve[-3:]]) < np.mean([parts[name] for parts in curve[:2]]), name
