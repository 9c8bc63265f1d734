"""Figures over pictures with bootstrap intervals, and the difference of two captioners."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.evaluate.tally import Tally


@dataclass(frozen=True)
class Figure:
    """A share over all pictures together.

    Attributes:
        value: hits over what they are of.
        low, high: ends of its percentile interval.
        n: what it is a share of: objects, texts, ...
        pictures: those that have any.
    """

    value: float
    low: float
    high: float
    n: float
    pictures: int


@dataclass(frozen=True)
class Difference:
    """One captioner's value less another's on the same pictures, with its percentile interval."""

    value: float
    low: float
    high: float


class Bootstrap:
    """Resamples of pictures, the same for every metric and captioner, so that differences are paired.

    Percentile intervals (Efron & Tibshirani 1993, chapter 13): whole pictures are drawn with replacement, because what
    one caption says is not independent.

    Args:
        pictures: how many there are.
        level: share of resamples within an interval.
    """

    def __init__(self, pictures: int, resamples: int, seed: int, level: float) -> None:
        rng = np.random.default_rng(seed)
        chances = np.full(pictures, 1 / pictures)
        self._weights = rng.multinomial(pictures, chances, size=resamples).astype(np.float32)
        self._ends = [50 - 50 * level, 50 + 50 * level]

    def figure(self, tallies: Sequence[Tally]) -> Figure | None:
        """Of one tally a picture; None where there is nothing that it could be a share of."""
        table = np.array(tallies, float).reshape(-1, 2)
        if not table[:, 1].sum():
            return None
        low, high = self._interval(self._shares(table))
        hits, out_of = table.sum(axis=0)
        return Figure(float(hits / out_of), low, high, float(out_of), int((table[:, 1] > 0).sum()))

    def difference(self, one: Sequence[Tally], other: Sequence[Tally]) -> Difference | None:
        """Of two captioners' tallies of the same pictures in the same order; None where one has no figure."""
        tables = [np.array(tallies, float).reshape(-1, 2) for tallies in (one, other)]
        if not all(table[:, 1].sum() for table in tables):
            return None
        first, second = (table.sum(axis=0) for table in tables)
        low, high = self._interval(self._shares(tables[0]) - self._shares(tables[1]))
        return Difference(float(first[0] / first[1] - second[0] / second[1]), low, high)

    def _shares(self, table: np.ndarray) -> np.ndarray:
        sums = self._weights @ table
        return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)

    def _interval(self, shares: np.ndarray) -> tuple[float, float]:
        """Resamples without anything to have a share of say nothing."""
        low, high = np.nanpercentile(shares, self._ends)
        return float(low), float(high)
