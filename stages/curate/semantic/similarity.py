"""The close pairs of two sets of rows."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stages.curate.semantic.bounds import Bounds
from stages.curate.semantic.cosine import dot_error, exact_cosines
from stages.curate.semantic.tiles import Prepared, Screen, Tiling, bounds_for, listable
from stages.curate.vectors import Vectors

_FEW = 4096, 1 << 17
"""Rows and pairs up to which one float32 product beats everything."""

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def close_pairs(a: Vectors, b: Vectors, tau: float, memory_mb: float = 100, device: str = "cpu") -> Iterator[Pairs]:
    """Pairs of a row of `a` and a row of `b` that are close: their cosine is strictly above `tau`.

    Yields:
        Row in a, row in b (int64) and cosine (float32) of some pairs, at most a quarter of a million.
    """
    rows, base = np.flatnonzero(a.scale), np.flatnonzero(b.scale)
    if tau >= 1 or len(rows) == 0 or len(base) == 0:
        return
    if len(rows) + len(base) <= _FEW[0] and len(rows) * len(base) <= _FEW[1]:
        i, j = np.nonzero(a.unit(rows) @ b.unit(base).T > tau - dot_error(a.stored.shape[1]))
        i, j = rows[i], base[j]
        cosine = exact_cosines(a, i, b, j)
        close = cosine > tau
        yield i[close], j[close], cosine[close].astype(np.float32)
        return
    bounds = bounds_for(a, rows, b, base, tau, len(rows) * len(base), device)
    tiling = Tiling.within(memory_mb, bounds)
    yield from pairs_of(a, rows, b, base, tau, bounds, tiling)


def pairs_of(
    a: Vectors, rows: np.ndarray, b: Vectors, base: np.ndarray, tau: float, bounds: Bounds, tiling: Tiling
) -> Iterator[Pairs]:
    """`close_pairs` of some rows of each, by given bounds and tiles."""
    half = replace(tiling, kept=tiling.kept // 2)
    screen = Screen(Prepared(a, rows, bounds, half), Prepared(b, base, bounds, half), tau, bounds, tiling)
    for start in range(0, len(base), tiling.base):
        at = np.arange(start, min(start + tiling.base, len(base)))
        right = screen.b.right(at)
        for first in range(0, len(rows), tiling.rows):
            part = np.arange(first, min(first + tiling.rows, len(rows)))
            hits, passed = screen.above(part, right, len(at))
            for some in listable(passed):
                place, column = np.nonzero(passed[some])
                i, j = part[hits[some][place]], at[column]
                close = screen.close(i, j)
                i, j = rows[i[close]], base[j[close]]
                if len(i):
                    yield i, j, exact_cosines(a, i, b, j).astype(np.float32)
