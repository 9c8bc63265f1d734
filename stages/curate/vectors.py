"""Stored columns as arrays."""

import numpy as np
import pyarrow as pa


def uid_array(table: pa.Table) -> np.ndarray:
    """The `uid` column as bytes of (rows,): compact, and sorts as the hex text does."""
    return np.array(table.column("uid").to_pylist(), "S32")


def unit_rows(embeddings: pa.ChunkedArray) -> np.ndarray:
    """An `embedding` column as float32 rows of unit length, (rows, width).

    fp16 storage moves a vector's length by up to 1e-3; undone here, so that equal rows have a cosine of 1.
    """
    width = embeddings.type.list_size
    flat = embeddings.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return normalised(flat.reshape(-1, width))


def normalised(rows: np.ndarray) -> np.ndarray:
    """float32 rows of unit length."""
    rows = rows.astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
