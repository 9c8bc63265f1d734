"""FAISS' flat index: float32 products of every row with every centroid."""

from typing import Any

import faiss
import numpy as np

from stages.curate.kmeans.engine import Engine

ROWS = 16_384
"""Of one search; fixed, because a product's shape may decide which of two equally near centroids is found."""


class FaissEngine(Engine):
    """On the CPU, and on a GPU where faiss-gpu is installed."""

    def nearest(self, centroids: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        index = _index(centroids, self.device)
        found = np.empty(len(self.rows), np.int32)

        def search(start: int) -> None:
            faiss.omp_set_num_threads(1)  # of the thread that calls
            at = slice(start, start + ROWS)
            found[at] = index.search(self.take(at).float().cpu().numpy(), 1)[1][:, 0]

        # an index on a GPU takes one search at a time
        for _ in (map if self.device != "cpu" else self.run)(search, range(0, len(found), ROWS)):
            pass
        return found


def _index(centroids: np.ndarray, device: str) -> Any:
    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    if device == "cpu" or not hasattr(faiss, "StandardGpuResources"):
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
