"""Vectors as the embed stage stores them."""

import numpy as np
import pyarrow as pa

from stages.base import GatherInput
from stages.curate.kmeans import half_units
from stages.curate.vectors import Vectors


def stored_rows(table: pa.Table) -> np.ndarray:
    """The vectors of a table of `embed` that has rows, float16 of (n, width)."""
    embedding = table.column("embedding")
    flat: np.ndarray = embedding.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, embedding.type.list_size)


def sampled_units(inputs: GatherInput, shards: list[str], sample: np.ndarray) -> np.ndarray:
    """The rows of a sample (numbers over all shards) that have a direction, in its order, as float16 unit vectors."""
    by_row = np.argsort(sample)
    numbers = sample[by_row]
    rows: np.ndarray | None = None
    lost = np.zeros(len(sample), bool)
    first = 0
    for shard in shards:
        table = inputs.table("embed", shard)
        lo, hi = np.searchsorted(numbers, (first, first + table.num_rows))
        if hi > lo:
            some = Vectors.of(stored_rows(table)[numbers[lo:hi] - first])
            if rows is None:
                rows = np.zeros((len(sample), some.stored.shape[1]), np.float16)
            fair = some.scale != 0
            rows[by_row[lo:hi][fair]] = half_units(some)
            lost[by_row[lo:hi][~fair]] = True
        first += table.num_rows
    assert rows is not None
    return rows[~lost] if lost.any() else rows
