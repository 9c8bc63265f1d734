"""Stored columns as arrays."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

BLOCK = 1024  # rows turned into float64 at once; they take 8 MB at a width of 512, and malloc may keep what they took
LONGEST = 1e30  # a length whose inverse float32 still holds with all its digits; so does 1 / LONGEST


def uid_array(table: pa.Table) -> np.ndarray:
    """The `uid` column as bytes of (rows,): compact, and sorts as the hex text does."""
    return np.array(table.column("uid").to_pylist(), "S32")


def vector_array(vectors: pa.ChunkedArray) -> np.ndarray:
    """An `embedding` column as it is stored: (rows, width)."""
    flat: np.ndarray = vectors.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, vectors.type.list_size)


@dataclass(frozen=True)
class Vectors:
    """Rows as they are stored, and what makes unit vectors of them.

    Attributes:
        stored: float16 or float32 of (n, d); may be memory-mapped.
        scale: float32 of (n,), 1 / length; 0 for a row with no direction (zero, NaN or infinite values, or a length
            that float32 cannot invert), whose cosine to everything is 0.
        mean: float32 of (d,), subtracted before scaling (centring); None subtracts nothing.
    """

    stored: np.ndarray
    scale: np.ndarray
    mean: np.ndarray | None = None

    @classmethod
    def of(cls, stored: np.ndarray, mean: np.ndarray | None = None) -> "Vectors":
        """Computes the scale, a block of rows at a time; each row's depends on that row and the mean alone."""
        scale = np.empty(len(stored), np.float32)
        for start in range(0, len(stored), BLOCK):
            rows = _moved(stored[start : start + BLOCK], mean).astype(np.float64)
            with np.errstate(all="ignore"):
                length = np.sqrt(np.square(rows, out=rows).sum(1))
                fair = (length > 1 / LONGEST) & (length < LONGEST)
                scale[start : start + BLOCK] = np.where(fair, 1 / length, 0)
        return cls(stored, scale, mean)

    def __len__(self) -> int:
        return len(self.stored)

    def unit(self, rows: slice | np.ndarray) -> np.ndarray:
        """Unit vectors of some rows, zeros for those with no direction: float32 of (m, d)."""
        scale = self.scale[rows, None]
        unit = _moved(self.stored[rows], self.mean)
        with np.errstate(invalid="ignore"):
            unit *= scale
        if not scale.all():
            unit[scale[:, 0] == 0] = 0
        return unit

    def take(self, rows: slice | np.ndarray) -> "Vectors":
        """Some of the rows, as they are stored."""
        return Vectors(self.stored[rows], self.scale[rows], self.mean)


def _moved(stored: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    """A float32 copy, less the mean."""
    rows = _single(stored)
    if mean is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            rows -= mean
    return rows


def _single(stored: np.ndarray) -> np.ndarray:
    if stored.dtype != np.float16:
        return stored.astype(np.float32)
    import torch

    # many times as fast as numpy's; torch wants memory that may be written to, which that of a mapped file may not be
    rows: np.ndarray = torch.from_numpy(stored if stored.flags.writeable else stored.copy()).float().numpy()
    return rows
