"""The rules on any number of rows, block after block.

Each block of rows in keep order is first settled within itself, then held against all later rows that are still there;
so the first row that a row is found to be close to is the earliest, and rows that went are never looked at again.
Rows are positions in the screen's two sides, which are the same rows.
"""

from typing import TYPE_CHECKING

import numpy as np

from stages.curate.semantic import gram
from stages.curate.semantic.tiles import Screen, listable

if TYPE_CHECKING:
    import torch

_FIRST = 256
"""Rows of the first block: where much is alike, the first few make the most others go."""
_SPARSE = 8
"""Candidates per row of a block up to which all of them are looked at."""
_LEAF = 256
"""Rows among which all cosines are taken at once where there are more."""


def first_earlier(screen: Screen) -> np.ndarray:
    """The first row before each row that it is close to, -1 for none: int64 of (n,)."""
    n = len(screen.a)
    by = np.full(n, -1)
    live = np.arange(n)
    start, size = 0, min(_FIRST, screen.tiling.base)
    while start < n and len(live):
        base = np.arange(start, min(start + size, n))
        right = screen.b.right(base)
        own, live = np.split(live, [np.searchsorted(live, base[-1], side="right")])
        passed = screen.all_above(own, right, len(base))
        place = np.arange(len(base), dtype=np.int16)
        passed &= place < place[own - start][:, None]
        _write(by, own, base, screen.first_close(passed, own, base))
        live = _swept(screen, live, base, by)
        start, size = start + size, min(2 * size, screen.tiling.base)
    return by


def greedy(screen: Screen) -> np.ndarray:
    """The first kept row that each row is close to, -1 where it is kept: int64 of (n,)."""
    by = np.full(len(screen.a), -1)
    live, size = np.arange(len(by)), min(_FIRST, screen.tiling.base)
    while len(live):
        block, live = live[:size], live[size:]
        passed = screen.all_above(block, screen.b.right(block), len(block))
        place = np.arange(len(block), dtype=np.int16)
        passed &= place < place[:, None]
        _Block(screen, block, passed, by).settle(0, len(block))
        live = _swept(screen, live, block[by[block] < 0], by)
        size = min(2 * size, screen.tiling.base)
    return by


def components(screen: Screen) -> np.ndarray:
    """The first row of each row's component, -1 for that row itself: int64 of (n,)."""
    n = len(screen.a)
    forest = _Forest(n)
    for start in range(0, n, screen.tiling.base):
        base = np.arange(start, min(start + screen.tiling.base, n))
        right = screen.b.right(base)
        for first in range(start, n, screen.tiling.rows):
            part = np.arange(first, min(first + screen.tiling.rows, n))
            held = forest.roots(base)
            if (held == held[0]).all():
                part = part[forest.roots(part) != held[0]]
            if len(part):
                _link(screen, part, base, right, forest)
    root = forest.roots(np.arange(n))
    return np.where(root == np.arange(n), -1, root)


def _link(screen: Screen, part: np.ndarray, base: np.ndarray, right: "torch.Tensor", forest: "_Forest") -> None:
    """Join the components of close pairs."""
    hits, passed = screen.above(part, right, len(base))
    if len(hits) == 0:
        return
    at = part[hits]
    # where much is alike, the first of each row join most
    first = base[passed.argmax(1)]
    close = screen.close(at, first)
    forest.join(at[close], first[close])
    passed &= forest.roots(at).astype(np.int32)[:, None] != forest.roots(base).astype(np.int32)
    for some in listable(passed):
        place, column = np.nonzero(passed[some])
        one, other = at[some][place], base[column]
        quota = 1
        while len(one):
            turn = np.arange(len(one)) - np.searchsorted(one, one) < quota
            close = screen.close(one[turn], other[turn])
            forest.join(one[turn][close], other[turn][close])
            one, other = one[~turn], other[~turn]
            apart = forest.roots(one) != forest.roots(other)
            one, other = one[apart], other[apart]
            quota *= 4


class _Forest:
    """Components as trees; the root of each is its least row."""

    def __init__(self, rows: int) -> None:
        self._parent = np.arange(rows)

    def roots(self, rows: np.ndarray) -> np.ndarray:
        root = self._parent[rows]
        while True:
            above = self._parent[root]
            if np.array_equal(above, root):
                break
            root = above
        self._parent[rows] = root
        return root

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Make one component of the two of each pair."""
        while len(one):
            one, other = self.roots(one), self.roots(other)
            apart = one != other
            one, other = one[apart], other[apart]
            np.minimum.at(self._parent, np.maximum(one, other), np.minimum(one, other))


def _swept(screen: Screen, live: np.ndarray, base: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The rows of `live` that no row of `base` is close to; the others are written into `by`."""
    if len(live) == 0:
        return live
    right = screen.b.right(base)
    for start in range(0, len(live), screen.tiling.rows):
        part = live[start : start + screen.tiling.rows]
        hits, passed = screen.above(part, right, len(base))
        at = part[hits]
        _write(by, at, base, screen.first_close(passed, at, base))
    return live[by[live] < 0]


def _write(by: np.ndarray, at: np.ndarray, base: np.ndarray, found: np.ndarray) -> None:
    gone = found >= 0
    by[at[gone]] = base[found[gone]]


class _Block:
    """Greedy within one block.

    Args:
        rows: positions, ascending.
        passed: which earlier row of the block each may be close to; bool of (m, m), changed.
        by: of all positions, written into.
    """

    def __init__(self, screen: Screen, rows: np.ndarray, passed: np.ndarray, by: np.ndarray) -> None:
        self._screen, self._rows, self._passed, self._by = screen, rows, passed, by

    def settle(self, start: int, stop: int) -> None:
        """Settle a range of the block within itself; where many may be alike its halves, one after the other."""
        rows = self._rows[start:stop]
        passed = self._passed[start:stop, start:stop]
        count = np.count_nonzero(passed)
        if count <= _SPARSE * len(rows):
            later, earlier = np.nonzero(passed)
            close = self._screen.close(rows[later], rows[earlier])
            _write(self._by, rows, rows, gram.walk(later[close], earlier[close], len(rows)))
        elif len(rows) <= _LEAF:
            rows = rows[self._by[rows] < 0]
            _write(self._by, rows, rows, gram.greedy(self._screen.a.unit(rows), self._screen.tau))
        else:
            middle = (start + stop) // 2
            self.settle(start, middle)
            self._hold(start, middle, stop)
            self.settle(middle, stop)

    def _hold(self, start: int, middle: int, stop: int) -> None:
        """Hold the rows from `middle` on that are still there against the kept ones before."""
        still = np.flatnonzero(self._by[self._rows[start:stop]] < 0) + start
        kept, later = np.split(still, [np.searchsorted(still, middle)])
        found = self._screen.first_close(self._passed[np.ix_(later, kept)], self._rows[later], self._rows[kept])
        _write(self._by, self._rows[later], self._rows[kept], found)
        gone = later[found >= 0]
        self._passed[gone] = False
        self._passed[:, gone] = False
