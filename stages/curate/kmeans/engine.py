"""What an engine of training does: find each row's centroid, and sum the rows of each."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import numpy as np

from stages.curate.kmeans.pool import Map
from stages.curate.vectors import Vectors

if TYPE_CHECKING:
    from torch import Tensor

EngineName = Literal["torch", "faiss"]

SUM_ROWS = 4096


class Engine(ABC):
    """Holds the training rows, float16 unit vectors of (n, d), on a device.

    Sums of rows are exact, so their order does not matter: a float16 of magnitude at most 1 is a multiple of 2^-24,
    and float64 holds sums of 2^29 of them.
    """

    def __init__(self, rows: np.ndarray, device: str, run: Map) -> None:
        import torch

        self.rows, self.device, self.run = rows, device, run
        self._moved = None if device == "cpu" else torch.tensor(rows, device=device)

    @abstractmethod
    def nearest(self, centroids: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """A centroid of greatest cosine for each row, int32 of (n,), as closely as the engine's arithmetic tells.

        Args:
            centroids: float32 unit vectors of (k, d).
            labels: the rows' centroids so far, near which an engine may look alone; None has it look at all.
        """

    def take(self, rows: slice | np.ndarray) -> "Tensor":
        """Some of the rows, float16 on the device."""
        import torch

        if self._moved is not None:
            return self._moved[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device)]
        return torch.from_numpy(np.array(self.rows[rows]) if isinstance(rows, slice) else np.asarray(self.rows[rows]))

    def sums(self, k: int) -> "Tensor":
        """Zeros, float64 of (k, d) on the device."""
        import torch

        return torch.zeros(k, self.rows.shape[1], dtype=torch.float64, device=self.device)

    def add(self, sums: "Tensor", rows: np.ndarray, labels: np.ndarray, sign: int = 1) -> None:
        """Add rows (numbers, int64 of (m,)) to the sums of their labels (of (m,)), or take them away."""
        import torch

        order = np.argsort(labels, kind="stable")
        rows, labels = rows[order], labels[order].astype(np.int64)

        def part(start: int) -> "tuple[int, Tensor]":
            at = slice(start, start + SUM_ROWS)
            first, last = int(labels[at][0]), int(labels[at][-1])
            some = self.sums(last - first + 1)
            # half to double by way of float: torch vectorises those conversions alone
            taken = self.take(rows[at]).float().double()
            some.index_add_(0, torch.from_numpy(labels[at] - first).to(self.device), taken)
            return first, some

        for first, some in self.run(part, range(0, len(rows), SUM_ROWS)):
            sums[first : first + len(some)].add_(some, alpha=sign)


def half_units(vectors: Vectors) -> np.ndarray:
    """The rows that have a direction, as float16 unit vectors of (n, d): what an engine holds."""
    which = np.flatnonzero(vectors.scale)
    rows = np.empty((len(which), vectors.stored.shape[1]), np.float16)
    for start in range(0, len(which), SUM_ROWS):
        rows[start : start + SUM_ROWS] = vectors.unit(which[start : start + SUM_ROWS])
    return rows


def make_engine(name: EngineName, rows: np.ndarray, device: str, run: Map) -> Engine:
    """An engine over rows as `half_units` makes them."""
    if name == "torch":
        from stages.curate.kmeans.torch_engine import TorchEngine

        return TorchEngine(rows, device, run)
    from stages.curate.kmeans.faiss_engine import FaissEngine

    return FaissEngine(rows, device, run)
