"""Spherical k-means by FAISS: cosine instead of distance, centroids of unit length."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from stages.curate.ranking import shuffled

_ASSIGN_ROWS = 16_384
"""Rows of one matrix product; fixed, because the product's shape may decide a cosine's last bit."""


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


@dataclass(frozen=True)
class SphericalKMeans:
    """Trains on one thread, so that two runs give the same centroids.

    Attributes:
        iterations: Lloyd iterations.
        seed: of the first centroids.
        nredo: independent starts, the best objective wins.
    """

    iterations: int
    seed: int
    nredo: int = 1

    def fit(self, rows: np.ndarray, k: int) -> np.ndarray:
        """Centroids, float32 unit vectors of (k, width), from at least k float32 unit rows."""
        import faiss

        kmeans = faiss.Kmeans(
            rows.shape[1],
            k,
            niter=self.iterations,
            nredo=self.nredo,
            seed=self.seed,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows),
        )
        with _one_thread():
            kmeans.train(rows)
        return np.asarray(kmeans.centroids, np.float32)

    def assign(self, rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest centroid of each row (int32) and the cosine to it (float32), both of (n,)."""
        import faiss

        index = faiss.IndexFlatIP(centroids.shape[1])
        index.add(centroids)
        labels = np.empty(len(rows), np.int32)
        cosines = np.empty(len(rows), np.float32)
        with _one_thread():
            for start in range(0, len(rows), _ASSIGN_ROWS):
                part = slice(start, start + _ASSIGN_ROWS)
                nearest, labelled = index.search(rows[part], 1)
                labels[part], cosines[part] = labelled[:, 0], nearest[:, 0]
        return labels, cosines


@contextmanager
def _one_thread() -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
