"""The rows that training sees."""

import numpy as np

from stages.base import GatherInput
from stages.curate.kmeans import half_units
from stages.curate.vectors import Vectors, vector_array


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
            some = Vectors.of(vector_array(table.column("embedding"))[numbers[lo:hi] - first])
            if rows is None:
                rows = np.zeros((len(sample), some.stored.shape[1]), np.float16)
            fair = some.scale != 0
            rows[by_row[lo:hi][fair]] = half_units(some)
            lost[by_row[lo:hi][~fair]] = True
        first += table.num_rows
    assert rows is not None
    return rows[~lost] if lost.any() else rows
