"""Which pairs of rows are close: decided in fast arithmetic where an error bound allows, else by the exact cosine."""

from collections.abc import Iterator

import numpy as np

from stages.curate.vectors import Vectors

TILE = 512


def exact_cosines(a: Vectors, rows: np.ndarray, b: Vectors, columns: np.ndarray) -> np.ndarray:
    """The cosine by definition: the float64 dot product of the float32 unit rows, at most 1. float64 of (pairs,).

    The products are exact in float64 and each row is summed by itself, so a pair's cosine is the same wherever and with
    whatever other pairs it is computed.
    """
    products = a.unit(rows).astype(np.float64)
    products *= b.unit(columns)
    return np.minimum(products.sum(1), 1)


def close_pairs(
    a: Vectors, b: Vectors, tau: float, memory_mb: float = 100, device: str = "cpu"
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of a row of `a` and a row of `b` whose cosine is strictly above `tau`.

    Yields:
        Row in a, row in b (int64) and cosine (float32) of some pairs, never more than fit into the memory.
    """
    margin = (a.stored.shape[1] + 8) * 2.0**-24 * 1.001
    for start in range(0, len(a), TILE):
        left = a.unit(slice(start, start + TILE))
        for base in range(0, len(b), TILE):
            rows, columns = np.nonzero(left @ b.unit(slice(base, base + TILE)).T > tau - margin)
            rows, columns = rows + start, columns + base
            cosine = exact_cosines(a, rows, b, columns)
            close = cosine > tau
            if close.any():
                yield rows[close], columns[close], cosine[close].astype(np.float32)
