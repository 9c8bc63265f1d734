"""The rules on few rows, by one float32 product."""

import numpy as np

from stages.curate.semantic.settle import joined
from stages.curate.semantic.tiles import dot_error, dots

FEW = 384
"""Rows up to which all cosines at once take less time than anything that looks at fewer."""
_SPARSE = 16
"""Pairs per row up to which a walk over the pairs beats one over the rows."""


def close_before(unit: np.ndarray, tau: float) -> np.ndarray:
    """Which earlier rows each row is close to: bool of (n, n), False on and above the diagonal.

    Args:
        unit: float32 unit rows, (n, d).
    """
    cosines = unit @ unit.T
    close = np.tril(cosines > tau, -1)
    unsure = np.abs(cosines - tau) <= dot_error(unit.shape[1])
    if unsure.any():
        later, earlier = np.nonzero(np.tril(unsure, -1))
        close[later, earlier] = dots(unit[later], unit[earlier]) > tau
    return close


def first_earlier(close: np.ndarray) -> np.ndarray:
    """The first row that each is close to, -1 for none."""
    first = close.argmax(1)
    first[~close[np.arange(len(close)), first]] = -1
    return first


def greedy(close: np.ndarray) -> np.ndarray:
    """The first kept row that each row is close to, -1 where it is kept."""
    by = np.full(len(close), -1)
    if np.count_nonzero(close) <= _SPARSE * len(close):
        later, earlier = np.nonzero(close)
        return walk(later, earlier, by)
    for row in range(len(close)):
        if by[row] < 0:
            by[(by < 0) & close[:, row]] = row
    return by


def walk(later: np.ndarray, earlier: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Let kept rows suppress, in `by`; the pairs are sorted by `later`, then `earlier`."""
    state = by.tolist()
    for row, before in zip(later.tolist(), earlier.tolist(), strict=True):
        if state[row] < 0 and state[before] < 0:
            state[row] = before
    by[:] = state
    return by


def components(close: np.ndarray) -> np.ndarray:
    """The first row of each row's component, -1 for that row itself."""
    later, earlier = np.nonzero(close)
    first = joined(earlier, later, len(close))
    return np.where(first == np.arange(len(first)), -1, first)
