"""A share of something, counted picture by picture."""

from typing import NamedTuple


class Tally(NamedTuple):
    """Of one picture: `hits` of `out_of`. Over pictures both are added up, so every thing counts alike."""

    hits: float
    out_of: float


def f1(right: int, said: int, true: int) -> Tally:
    """2 right / (said + true), which is the harmonic mean of precision and recall."""
    return Tally(2 * right, said + true)
