"""The rules on few rows, by one float32 product; each gives places of rows, int64 of (n,), -1 where a row is kept."""

from collections.abc import Callable

import numpy as np

from stages.curate.semantic.cosine import cosines_of, dot_error
from stages.curate.semantic.settle import joined

FEW = 384
"""Rows up to which all cosines at once take less time than anything that looks at fewer."""
_SPARSE = 16
"""Close rows per row, itself among them, up to which a walk over pairs beats one over a matrix."""


def greedy(unit: np.ndarray, tau: float) -> np.ndarray:
    """The first kept row that each row is close to.

    Args:
        unit: float32 unit rows, (n, d), as of the other rules.
    """
    return _applied(unit, tau, walk, _greedy_over)


def first_earlier(unit: np.ndarray, tau: float) -> np.ndarray:
    """The first row before each that it is close to."""
    return _applied(unit, tau, _first_of, _first_in)


def components(unit: np.ndarray, tau: float) -> np.ndarray:
    """The first row of each row's component, -1 for that row itself."""
    return _applied(unit, tau, _component_of, _component_in)


def _applied(
    unit: np.ndarray,
    tau: float,
    to_pairs: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
    to_matrix: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """A rule on pairs (later rows, ascending, and earlier rows, ascending for each; rows), or where there are many on a
    matrix of which earlier row each row is close to."""
    n, error = len(unit), dot_error(unit.shape[1])
    cosines = unit @ unit.T
    maybe = cosines > tau - error
    if np.count_nonzero(maybe) <= _SPARSE * n:
        later, earlier = np.nonzero(maybe)
        before = earlier < later
        later, earlier = later[before], earlier[before]
        close = cosines[later, earlier] > tau + error
        unsure = ~close
        if unsure.any():
            close[unsure] = cosines_of(unit.__getitem__, later[unsure], unit.__getitem__, earlier[unsure]) > tau
        return to_pairs(later[close], earlier[close], n)
    maybe = np.tril(maybe, -1)
    later, earlier = np.nonzero(maybe & (cosines <= tau + error))
    maybe[later, earlier] = cosines_of(unit.__getitem__, later, unit.__getitem__, earlier) > tau
    return to_matrix(maybe)


def walk(later: np.ndarray, earlier: np.ndarray, n: int) -> np.ndarray:
    """What kept rows suppress; pairs are sorted by later and then by earlier row."""
    by = [-1] * n
    for row, before in zip(later.tolist(), earlier.tolist(), strict=True):
        if by[row] < 0 and by[before] < 0:
            by[row] = before
    return np.array(by, np.int64)


def _greedy_over(close: np.ndarray) -> np.ndarray:
    by = np.full(len(close), -1)
    for row in range(len(close)):
        if by[row] < 0:
            by[(by < 0) & close[:, row]] = row
    return by


def _first_of(later: np.ndarray, earlier: np.ndarray, n: int) -> np.ndarray:
    by = np.full(n, -1)
    by[later[::-1]] = earlier[::-1]  # the first of a row is written last
    return by


def _first_in(close: np.ndarray) -> np.ndarray:
    first = close.argmax(1)
    return np.where(close[np.arange(len(close)), first], first, -1)


def _component_of(later: np.ndarray, earlier: np.ndarray, n: int) -> np.ndarray:
    first = joined(earlier, later, n)
    return np.where(first == np.arange(n), -1, first)


def _component_in(close: np.ndarray) -> np.ndarray:
    later, earlier = np.nonzero(close)
    return _component_of(later, earlier, len(close))
