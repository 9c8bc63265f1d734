"""Rows that are the very same bytes."""

import numpy as np

BLOCK = 4096


def first_copies(stored: np.ndarray) -> np.ndarray:
    """The first row of the same bytes as each row, itself where there is none before: int64 of (n,).

    Rows meet by a 64-bit hash and are then compared; two groups that share a hash, which chance gives to no one, would
    only count as fewer copies.
    """
    n = len(stored)
    own = np.arange(n)
    if n < 2:
        return own
    hashes = _hashes(stored)
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    starts = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    if starts.all():
        return own
    first = np.empty(n, np.int64)
    first[order] = order[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    later = np.flatnonzero(first != own)
    for start in range(0, len(later), BLOCK):
        rows = later[start : start + BLOCK]
        equal = (_bits(stored[rows]) == _bits(stored[first[rows]])).all(1)
        first[rows[~equal]] = rows[~equal]
    return first


def _hashes(stored: np.ndarray) -> np.ndarray:
    hashes = np.empty(len(stored), np.uint64)
    words = _bits(stored[:1]).shape[1]
    factors = np.random.default_rng(0).integers(2**64, size=words, dtype=np.uint64) | np.ones(words, np.uint64)
    for start in range(0, len(stored), BLOCK):
        part = slice(start, start + BLOCK)
        hashes[part] = (_bits(stored[part]) * factors).sum(1)
    return hashes


def _bits(rows: np.ndarray) -> np.ndarray:
    """The rows' bytes in the widest unsigned integers that hold a row."""
    size = rows.shape[1] * rows.itemsize
    kind = next(kind for kind in (np.uint64, np.uint32, np.uint16) if size % np.dtype(kind).itemsize == 0)
    return np.ascontiguousarray(rows).view(kind)
