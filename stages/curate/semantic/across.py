"""The three rules over all clusters, where rows are also compared in the clusters that they visit.

Two rows are *neighbours* where their cosine is above the threshold and they share a cluster or one of them visits the
other's. Each rule is applied to that graph exactly, as if it were at hand; only the part that matters is computed.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from stages.curate.semantic.clustered import Clustered, Found, Step, earliest, joined_up
from stages.curate.semantic.cosine import exact_cosines
from stages.curate.semantic.rules import Rule
from stages.curate.semantic.settle import joined, settle

_PATIENCE = 4
"""Rounds of releases after which whole clusters are gone through again: along a series that drifts on across a border
every row's fate hangs on that of the one before, and a round would free one row."""
_BLOCK = 1 << 14


class Search(ABC):
    """Has steps taken over all clusters, wherever.

    Args:
        rows: their `visits` need not be at hand.
    """

    def __init__(self, rows: Clustered) -> None:
        self.rows = rows
        self.rank = rows.rank
        self.cluster = np.repeat(np.arange(len(rows.starts) - 1, dtype=np.int32), np.diff(rows.starts))

    @abstractmethod
    def parts(self, step: Step, asks: np.ndarray, answers: np.ndarray, label: np.ndarray | None) -> Iterator[Found]:
        """`Clustered.take` over ranges of clusters that cover all of them, in their order."""

    def duplicates(self, rule: Rule, borders: bool) -> tuple[np.ndarray, np.ndarray]:
        """Which rows go, by a rule.

        Args:
            borders: some rows visit further clusters.

        Returns:
            Because of which row each goes (int64 of (n,), -1 where it is kept) and the cosine to it (float32 of (n,),
            NaN where kept). With `greedy` that is a kept row, with `semdedup` any earlier one, with `components` the
            first of the component; the earliest in the row's own cluster where there is one, when the search came by.
        """
        everything = np.ones(len(self.rank), bool)
        _, by, cosine = self._within(everything, rule)
        if borders:
            match rule:
                case "greedy":
                    self._greedy(by, cosine)
                case "semdedup":
                    found = self._taken(Step("first"), by < 0, everything)
                    rows, first, close = earliest(found, self.rank)
                    by[rows], cosine[rows] = first, close
                case "components":
                    self._components(by, cosine)
        return by, cosine

    def _greedy(self, by: np.ndarray, cosine: np.ndarray) -> None:
        """Turn, in place, what greedy left inside each cluster into what it leaves over all of them.

        The rows that were ever kept are *active*, and all pairs of neighbours among them are known. What stays of that
        graph is what stays of the whole one as soon as each other row has an earlier neighbour that stays: then a row
        stays exactly if no earlier neighbour does, which only one set fulfils. Rows that lost their suppressor are
        released: they look for another one that stays; those without one pass through their cluster's greedy walk
        among themselves, and what it keeps becomes active. Active rows only grow, so this ends.
        """
        active = by < 0
        edges = [self._pairs(active, active, own=False)]
        for turn in itertools.count():
            asking, answering, close = joined_up(edges)
            swap = self.rank[asking] > self.rank[answering]
            earlier, later = np.where(swap, answering, asking), np.where(swap, asking, answering)
            kept = settle(earlier, later, len(by)) & active
            released = ~active & ~kept[by]
            if not released.any():
                break
            asking, answering, close = joined_up(self._taken(Step("fate", own=True), released, kept))
            ahead = self.rank[answering] < self.rank[asking]
            rows, first, found = earliest([(asking[ahead], answering[ahead], close[ahead])], self.rank)
            by[rows], cosine[rows] = first, found
            released[rows] = False
            others = active & ~kept
            if turn >= _PATIENCE:
                others = active
                lost = later[kept[earlier] & (self.cluster[earlier] != self.cluster[later])]
                released = self._redone(released, lost, active, kept, by)
            rows, first, found = self._within(released, "greedy")
            idle = ~active[rows]
            gone, fresh = idle & (first >= 0), rows[idle & (first < 0)]
            by[rows[gone]], cosine[rows[gone]] = first[gone], found[gone]
            active[fresh] = others[fresh] = True
            new = _mask(fresh, len(by))
            behind = ~ahead & new[asking]
            edges.append((asking[behind], answering[behind], close[behind]))
            edges.append(self._pairs(new, others, own=True))
        by[kept], cosine[kept] = -1, np.nan
        suppressing = kept[earlier] & ~kept[later]
        rows, first, found = earliest([(later[suppressing], earlier[suppressing], close[suppressing])], self.rank)
        by[rows], cosine[rows] = first, found

    def _redone(
        self, released: np.ndarray, lost: np.ndarray, active: np.ndarray, kept: np.ndarray, by: np.ndarray
    ) -> np.ndarray:
        """All rows of the clusters of `released`, but for those that go because of another cluster's rows.

        Args:
            lost: active rows that have a kept earlier neighbour in another cluster.
        """
        again = np.isin(self.cluster, self.cluster[released])
        again[lost] = False
        again &= active | ~kept[by] | (self.cluster[by] == self.cluster)
        return again

    def _components(self, by: np.ndarray, cosine: np.ndarray) -> None:
        everything = np.ones(len(by), bool)
        rows = np.arange(len(by))
        first = np.where(by < 0, rows, by)
        step = Step("links", mutual=True)
        one, other, _ = joined_up(self._taken(step, everything, everything, first))
        place = np.argsort(self.rank)
        label = joined(self.rank[one], self.rank[other], len(by))
        root = place[label[self.rank[first]]]
        moved = np.flatnonzero(root != first)
        by[moved] = root[moved]
        for start in range(0, len(moved), _BLOCK):
            part = moved[start : start + _BLOCK]
            cosine[part] = exact_cosines(self.rows.vectors, part, self.rows.vectors, by[part])

    def _within(self, asks: np.ndarray, rule: Rule) -> Found:
        return joined_up(self._taken(Step("within", rule), asks, asks))

    def _pairs(self, asks: np.ndarray, answers: np.ndarray, own: bool) -> Found:
        return joined_up(self._taken(Step("pairs", own=own, mutual=asks is answers), asks, answers))

    def _taken(self, step: Step, asks: np.ndarray, answers: np.ndarray, label: np.ndarray | None = None) -> list[Found]:
        return list(self.parts(step, asks, answers, label)) if asks.any() else []


class LocalSearch(Search):
    """All steps in this process; the rows' visits are those of all clusters."""

    def parts(self, step: Step, asks: np.ndarray, answers: np.ndarray, label: np.ndarray | None) -> Iterator[Found]:
        yield self.rows.take(step, range(len(self.rows.starts) - 1), asks, answers, label)


def _mask(rows: np.ndarray, length: int) -> np.ndarray:
    mask = np.zeros(length, bool)
    mask[rows] = True
    return mask
