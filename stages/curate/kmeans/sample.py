"""Which rows train how many centroids."""

import numpy as np

from stages.curate.ranking import shuffled


def allowed_k(k: int, rows: int, min_rows_per_centroid: int) -> int:
    """`k`, lowered where the rows do not give every centroid `min_rows_per_centroid` of them; at least 1."""
    return max(1, min(k, rows // min_rows_per_centroid))


def training_rows(uids: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Which rows train the centroids, as row numbers in training order.

    The draw goes by a hash of uid and seed: the same rows in the same order, however the rows are spread over shards.

    Args:
        uids: 128-bit hex, bytes of (n,).
        most: at most this many are taken.
    """
    return shuffled(uids, seed)[:most]
