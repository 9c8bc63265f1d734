"""Which rows of a cluster go, by rule."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from stages.curate.semantic import blocks, gram
from stages.curate.semantic.bounds import Bounds
from stages.curate.semantic.copies import first_copies
from stages.curate.semantic.tiles import Prepared, Screen, Tiling, bounds_for, exact_cosines
from stages.curate.vectors import Vectors

Rule = Literal["greedy", "semdedup", "components"]

# each on few rows (which earlier ones each is close to) and on any number
_RULES: dict[Rule, tuple[Callable[[np.ndarray], np.ndarray], Callable[[Screen], np.ndarray]]] = {
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
        memory_mb: for everything beside the stored rows, from about 40 on kept whatever n is; less makes it slower.
        device: where torch takes products.

    Returns:
        Because of which row each goes (int64 of (n,), -1 where it is kept), and the cosine to it (float32 of (n,), NaN
        where kept). That row is the earliest close one among those compared with; of `components` the first of its
        component, to which the cosine may lie below `tau`.
    """
    by = np.full(len(vectors), -1)
    rows = np.flatnonzero(vectors.scale)
    if tau >= 1 or len(rows) == 0:
        pass
    elif len(rows) <= gram.FEW:
        found = _RULES[rule][0](gram.close_before(vectors.unit(rows), tau))
        by[rows] = np.where(found < 0, -1, rows[found])
    else:
        bounds = bounds_for(vectors, rows, vectors, rows, tau, len(rows) ** 2 // 2, device)
        by = suppressors(vectors, tau, rule, bounds, Tiling.within(memory_mb))
    cosine = np.full(len(by), np.nan, np.float32)
    gone = np.flatnonzero(by >= 0)
    cosine[gone] = exact_cosines(vectors, gone, vectors, by[gone])
    return by, cosine


def suppressors(vectors: Vectors, tau: float, rule: Rule, bounds: Bounds, tiling: Tiling) -> np.ndarray:
    """Because of which row each goes, -1 where it is kept: int64 of (n,)."""
    by = np.full(len(vectors), -1)
    first = _first_alike(vectors, tau)
    own = first == np.arange(len(first))
    rows = np.flatnonzero(own & (vectors.scale != 0))
    if len(rows) == 0:
        return by
    prepared = Prepared(vectors, rows, bounds, tiling.kept)
    found = _RULES[rule][1](Screen(prepared, prepared, tau, bounds, tiling))
    by[rows] = np.where(found < 0, -1, rows[found])
    # a copy has the first one's neighbours, and the first one before it
    copies = np.flatnonzero(~own)
    by[copies] = np.where(by[first[copies]] < 0, first[copies], by[first[copies]])
    return by


def _first_alike(vectors: Vectors, tau: float) -> np.ndarray:
    """The first of the very same rows as each, where they are close to one another: int64 of (n,).

    A float32 unit row's product with itself may fall short of 1 by some 1e-7, and so of the highest thresholds.
    """
    first = first_copies(vectors.stored)
    first[vectors.scale == 0] = np.flatnonzero(vectors.scale == 0)
    copied = np.unique(first[first != np.arange(len(first))])
    short = copied[exact_cosines(vectors, copied, vectors, copied) <= tau]
    if len(short):
        alone = np.isin(first, short)
        first[alone] = np.flatnonzero(alone)
    return first
