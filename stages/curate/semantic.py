"""Semantic duplicates inside one cluster, by cosine; the similarity matrix exists one block at a time."""

from typing import Literal

import numpy as np

Rule = Literal["semdedup", "greedy"]

BLOCK = 1024


def semantic_duplicates(
    rows: np.ndarray, threshold: float, rule: Rule, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a cluster go because an earlier one is more similar than `threshold` (strictly).

    `semdedup` compares with every earlier row, also with those that went (SemDeDup's released code, semdedup.py):
    along a chain of small steps all but the first go. `greedy` compares with kept rows only: a removed row always has
    a kept one above the threshold.

    Memory: block x block cosines. Half of the matrix is computed.

    Args:
        rows: float32 unit vectors of (n, width), in keep order.
        threshold: cosine, 1 - epsilon.

    Returns:
        The most similar of the rows compared with, the earliest where several are (int64 of (n,), -1 where the row is
        kept), and the cosine to it (float32 of (n,), NaN where kept).
    """
    by = np.full(len(rows), -1, np.int64)
    cosine = np.full(len(rows), -np.inf, np.float32)
    for start in range(0, len(rows), block):
        stop = min(start + block, len(rows))
        part = rows[start:stop]
        nearest, best = by[start:stop], cosine[start:stop]
        for base in range(0, start, block):
            earlier = np.arange(base, base + block)
            if rule == "greedy":
                earlier = earlier[by[base : base + block] < 0]
            if len(earlier):
                _closer(part @ rows[earlier].T, earlier, nearest, best)
        within = part @ part.T
        if rule == "greedy":
            for j in range(stop - start - 1):
                if best[j] <= threshold:
                    _closer(within[j + 1 :, j : j + 1], np.array([start + j]), nearest[j + 1 :], best[j + 1 :])
        else:
            within[np.triu_indices(stop - start)] = -np.inf
            _closer(within, np.arange(start, stop), nearest, best)
        nearest[best <= threshold] = -1
    cosine[by < 0] = np.nan
    return by, cosine


def _closer(cosines: np.ndarray, columns: np.ndarray, nearest: np.ndarray, best: np.ndarray) -> None:
    """Take over, in place, the first greatest cosine of each row where it beats the best so far."""
    greatest = cosines.argmax(axis=1)
    value = cosines[np.arange(len(cosines)), greatest]
    better = value > best
    best[better] = value[better]
    nearest[better] = columns[greatest[better]]
