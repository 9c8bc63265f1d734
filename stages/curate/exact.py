"""Exact duplicates: equal content hashes."""

import numpy as np


def exact_duplicates(hashes: np.ndarray) -> np.ndarray:
    """For each row, in keep order, the first row with the same hash; -1 for that first row itself.

    Args:
        hashes: bytes of (n,).

    Returns:
        int64 of (n,).
    """
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    by = first[inverse].astype(np.int64)
    by[by == np.arange(len(hashes))] = -1
    return by
