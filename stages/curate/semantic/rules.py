"""Which rows of a cluster go, by rule."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from stages.curate.semantic import blocks, gram
from stages.curate.semantic.cosine import UnitRows, cosines_of
from stages.curate.semantic.tiles import Prepared, Screen, Tiling, bounds_for
from stages.curate.vectors import Vectors

Rule = Literal["greedy", "semdedup", "components"]

# each on few unit rows and on any number
_RULES: dict[Rule, tuple[Callable[[np.ndarray, float], np.ndarray], Callable[[Screen], np.ndarray]]] = {
    "greedy": (gram.greedy, blocks.greedy),
    "semdedup": (gram.first_earlier, blocks.first_earlier),
    "components": (gram.components, blocks.components),
}


def duplicates_within(
    vectors: Vectors, tau: float, rule: Rule, memory_mb: float = 100, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a cluster go because an earlier one is close to them: its cosine is strictly above `tau`.

    `greedy` compares with kept rows only: a row that goes always has a kept one that is close. `semdedup` compares with
    every earlier row, also with those that went (SemDeDup's released code, semdedup.py): along a chain of small steps
    all but the first go. `components` keeps the first row of whatever hangs together.

    The result is the same for every memory, device, number of threads and arithmetic: what fast products cannot decide
    by the bound of their error, the exact cosine does.

    Args:
        vectors: n rows, in keep order.
        tau: cosine, 1 - epsilon; at least 0. From 1 on nothing is close.
        memory_mb: for everything beside the stored rows, from about 32 on kept whatever n is; less makes it slower.
        device: where torch takes products.

    Returns:
        Because of which row each goes (int64 of (n,), -1 where it is kept), and the cosine to it (float32 of (n,), NaN
        where kept). That row is the earliest close one among those compared with; of `components` the first of its
        component, to which the cosine may lie below `tau`.
    """
    by = np.full(len(vectors), -1)
    cosine = np.full(len(vectors), np.nan, np.float32)
    rows = np.flatnonzero(vectors.scale)
    units: UnitRows
    if tau >= 1 or len(rows) == 0:
        return by, cosine
    if len(rows) <= gram.FEW:
        unit = vectors.unit(rows if len(rows) < len(by) else slice(None))
        found = _RULES[rule][0](unit, tau)
        units = unit.__getitem__
    else:
        bounds = bounds_for(vectors, rows, vectors, rows, tau, len(rows) ** 2 // 2, device)
        tiling = Tiling.within(memory_mb, bounds)
        prepared = Prepared(vectors, rows, bounds, tiling)
        found = _RULES[rule][1](Screen(prepared, prepared, tau, bounds, tiling))
        units = prepared.unit
    gone = np.flatnonzero(found >= 0)
    cosine[rows[gone]] = cosines_of(units, gone, units, found[gone])
    by[rows[gone]] = rows[found[gone]]
    return by, cosine
