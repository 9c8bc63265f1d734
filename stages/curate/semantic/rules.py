"""Which rows of a cluster go, by rule."""

from typing import Literal

import numpy as np

from stages.curate.semantic.similarity import TILE, close_pairs, exact_cosines
from stages.curate.vectors import Vectors

Rule = Literal["greedy", "semdedup", "components"]


def duplicates_within(
    vectors: Vectors, tau: float, rule: Rule, memory_mb: float = 100, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a cluster go because an earlier one is close to them: its cosine is strictly above `tau`.

    `greedy` compares with kept rows only: a row that goes always has a kept one that is close. `semdedup` compares with
    every earlier row, also with those that went (SemDeDup's released code, semdedup.py): along a chain of small steps
    all but the first go. `components` keeps the first row of whatever hangs together.

    Args:
        vectors: n rows, in keep order.
        tau: cosine, 1 - epsilon; at least 0. From 1 on nothing is close.

    Returns:
        Because of which row each goes (int64 of (n,), -1 where it is kept), and the cosine to it (float32 of (n,), NaN
        where kept). That row is the earliest close one among those compared with; of `components` the first of its
        component, to which the cosine may lie below `tau`.
    """
    by = np.full(len(vectors), -1)
    if rule == "components":
        first = np.arange(len(vectors))
        for a, b, _ in close_pairs(vectors, vectors, tau):
            for i, j in zip(a.tolist(), b.tolist(), strict=True):
                if first[i] != first[j]:
                    low, high = sorted((first[i], first[j]))
                    first[first == high] = low
        gone = first != np.arange(len(vectors))
        by[gone] = first[gone]
    else:
        for start in range(0, len(vectors), TILE):
            part = vectors.take(slice(start, start + TILE))
            edges = sorted(
                (j + start, i)
                for rows, columns, _ in close_pairs(part, vectors.take(slice(0, start + TILE)), tau)
                for j, i in zip(rows.tolist(), columns.tolist(), strict=True)
                if i < j + start
            )
            for j, i in edges:
                if by[j] < 0 and (rule == "semdedup" or by[i] < 0):
                    by[j] = i
    cosine = np.full(len(by), np.nan, np.float32)
    gone = np.flatnonzero(by >= 0)
    cosine[gone] = exact_cosines(vectors, gone, vectors, by[gone])
    return by, cosine
