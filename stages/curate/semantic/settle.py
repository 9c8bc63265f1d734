"""Who stays in a sparse graph of close pairs; each edge points from the row earlier in keep order to the later one."""

import numpy as np

_FEW = 64
"""Rows that may be decided at once below which steps in Python are quicker than a round of array operations."""

_UNDECIDED, _KEPT, _GONE = 0, 1, 2


def settle(earlier: np.ndarray, later: np.ndarray, rows: int) -> np.ndarray:
    """The rows that stay: a row goes exactly when an earlier one that stays is close to it; bool of (rows,).

    This is what a greedy walk in keep order leaves: the lexicographically first maximal independent set (Blelloch,
    Fineman, Shun, "Greedy sequential maximal independent set and matching are parallel on average", SPAA 2012). All
    rows whose earlier neighbours have gone are decided together; each edge is looked at a bounded number of times, so
    the time is linear in edges, along one path through all rows as well. Memory: about 50 bytes for every edge.

    Args:
        earlier, later: row numbers of the ends of each edge, integers of (m,); an edge may come more than once. The
            edges must have no cycle, as those between places in one order have none.
        rows: how many rows there are; rows without an edge stay.
    """
    kept = np.ones(rows, bool)
    if len(earlier) == 0:
        return kept
    named, ends = np.unique(np.concatenate([earlier, later]), return_inverse=True)
    graph = _Graph(ends[: len(earlier)], ends[len(earlier) :], len(named))
    free = np.flatnonzero(graph.waits == 0)
    while len(free):
        free = graph.round(free) if len(free) > _FEW else graph.steps(free)
    kept[named] = graph.state == _KEPT
    return kept


class _Graph:
    """Edges by their earlier end, and how far each row is from being decided.

    Attributes:
        state: of each row.
        waits: edges from earlier rows that have not gone.
    """

    def __init__(self, earlier: np.ndarray, later: np.ndarray, rows: int) -> None:
        order = np.argsort(earlier, kind="stable")
        self._to = later[order]
        self._start = np.concatenate([[0], np.cumsum(np.bincount(earlier, minlength=rows))])
        self.waits = np.bincount(later, minlength=rows)
        self.state = np.zeros(rows, np.int8)

    def round(self, free: np.ndarray) -> np.ndarray:
        """Keep `free`, whose earlier neighbours have all gone; returns the rows that this sets free."""
        self.state[free] = _KEPT
        near = self._later(free)
        gone = np.unique(near[self.state[near] == _UNDECIDED])
        self.state[gone] = _GONE
        behind = self._later(gone)
        np.subtract.at(self.waits, behind, 1)
        behind = np.unique(behind)
        return behind[(self.waits[behind] == 0) & (self.state[behind] == _UNDECIDED)]

    def steps(self, free: np.ndarray) -> np.ndarray:
        """The same row by row, until none is free or many are; returns those."""
        stack = free.tolist()
        state, waits, start = self.state, self.waits, self._start
        while stack and len(stack) <= 4 * _FEW:
            row = stack.pop()
            state[row] = _KEPT
            for gone in self._to[start[row] : start[row + 1]].tolist():
                if state[gone] != _UNDECIDED:
                    continue
                state[gone] = _GONE
                for behind in self._to[start[gone] : start[gone + 1]].tolist():
                    waits[behind] -= 1
                    if waits[behind] == 0 and state[behind] == _UNDECIDED:
                        stack.append(behind)
        return np.array(stack, np.int64)

    def _later(self, rows: np.ndarray) -> np.ndarray:
        """The later ends of all edges of `rows`."""
        first = self._start[rows]
        lengths = self._start[rows + 1] - first
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        return self._to[np.arange(total) + np.repeat(first - (ends - lengths), lengths)]


def joined(one: np.ndarray, other: np.ndarray, rows: int) -> np.ndarray:
    """The least row number of each row's connected component, int64 of (rows,).

    The label of each component found so far falls to the least label across an edge, and every row then takes its
    label's label, until nothing falls ("hooking" and "shortcutting" of Shiloach and Vishkin, "An O(log n) parallel
    connectivity algorithm", 1982). A path through all rows takes few rounds, in whatever order they stand.

    Args:
        one, other: row numbers of the ends of each edge, integers of (m,).
    """
    label = np.arange(rows)
    while True:
        a, b = label[one], label[other]
        apart = a != b
        if not apart.any():
            return label
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while True:
            further = label[label]
            if np.array_equal(further, label):
                break
            label = further
