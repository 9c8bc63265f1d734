"""The cosine of two rows, by definition, and how far a quick one may be from it."""

from collections.abc import Callable

import numpy as np

from stages.curate.vectors import Vectors

PAIRS = 1024
"""Pairs whose rows are in memory at once."""


UnitRows = Callable[[np.ndarray], np.ndarray]
"""Gives float32 unit rows, (m, d), of row numbers, (m,)."""


def exact_cosines(a: Vectors, rows: np.ndarray, b: Vectors, columns: np.ndarray) -> np.ndarray:
    """The cosine by definition: the float64 dot product of the float32 unit rows, at most 1. float64 of (pairs,)."""
    return cosines_of(a.unit, rows, b.unit, columns)


def cosines_of(a: UnitRows, rows: np.ndarray, b: UnitRows, columns: np.ndarray) -> np.ndarray:
    """`exact_cosines` of what gives unit rows."""
    cosines = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        cosines[part] = dots(a(rows[part]), b(columns[part]))
    return cosines


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same of float32 unit rows beside each other, (pairs, d).

    The products are exact in float64 and each pair is summed by itself, so its cosine is the same wherever and with
    whatever other pairs it is computed.
    """
    products = a.astype(np.float64)
    products *= b
    return np.minimum(products.sum(1), 1)


def dot_error(d: int) -> float:
    """How far a float32 dot product of unit rows, summed in any order, may be from the cosine (Higham, Accuracy and
    Stability of Numerical Algorithms, 3.1); with room for a threshold that is rounded to float32."""
    return (d + 4) * 2.0**-24 * 1.01
