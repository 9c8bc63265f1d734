"""Comparing chosen rows inside clusters and across the borders that they visit; one cluster in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.curate.semantic.border import Visits
from stages.curate.semantic.rules import Rule, duplicates_within
from stages.curate.semantic.similarity import close_pairs
from stages.curate.vectors import Vectors

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, the row that each was held against (both int64 of (m,)), and their cosine (float32 of (m,))."""


@dataclass(frozen=True)
class Step:
    """What is asked of each cluster.

    Attributes:
        kind: `within` applies a rule to the asking rows of each cluster: every one of them, the row because of which it
            goes or -1, and the cosine or NaN. The others compare rows that ask with rows that answer where one of the
            two visits the other's cluster: `pairs` gives all close pairs, `first` for each asking row the answering
            one, close and earlier in keep order, that is the earliest; `links` gives pairs of `label` that a close pair
            links, each once per cluster, with NaN for a cosine.
        rule: of `within`.
        own: rows are compared in their own clusters too.
        mutual: the rows that ask and those that answer are the same.
    """

    kind: Literal["within", "pairs", "first", "links"]
    rule: Rule = "greedy"
    own: bool = False
    mutual: bool = False


@dataclass(frozen=True)
class Clustered:
    """Rows sorted by cluster and in each by keep order; a row's number is its place there.

    Attributes:
        vectors: n rows.
        rank: place of each row in the keep order over all clusters; int64 of (n,).
        starts: where each cluster begins; int64 of (k + 1,).
        visits: of the clusters that are asked about.
        tau: rows are close where their cosine is strictly above it.
        memory_mb, device: of the comparisons.
    """

    vectors: Vectors
    rank: np.ndarray
    starts: np.ndarray
    visits: Visits
    tau: float
    memory_mb: float = 100
    device: str = "cpu"

    def take(self, step: Step, clusters: range, asks: np.ndarray, answers: np.ndarray, label: np.ndarray) -> Found:
        """What a step finds in some clusters.

        Args:
            asks, answers: bool of (n,).
            label: int64 of (n,); of `links`.
        """
        found = [_nothing()]
        for cluster in clusters:
            match step.kind:
                case "within":
                    found.append(self._within(cluster, step.rule, asks))
                case "pairs":
                    found.extend(self._between(cluster, step, asks, answers))
                case "first":
                    found.append(self._first(cluster, step, asks, answers))
                case "links":
                    found.append(self._links(cluster, step, asks, answers, label))
        return joined_up(found)

    def _within(self, cluster: int, rule: Rule, asks: np.ndarray) -> Found:
        rows = self._residents(cluster, asks)
        by, cosine = duplicates_within(self.vectors.take(_slice(rows)), self.tau, rule, self.memory_mb, self.device)
        return rows, np.where(by < 0, -1, rows[by]), cosine

    def _between(self, cluster: int, step: Step, asks: np.ndarray, answers: np.ndarray) -> Iterator[Found]:
        visitors = self.visits.to(cluster)
        asking = visitors[asks[visitors]]
        if step.own:
            asking = np.concatenate([asking, self._residents(cluster, asks)])
        yield from self._close(asking, self._residents(cluster, answers) if len(asking) else asking)
        if not step.mutual:
            asking = self._residents(cluster, asks)
            yield from self._close(asking, visitors[answers[visitors]] if len(asking) else asking)

    def _close(self, asking: np.ndarray, answering: np.ndarray) -> Iterator[Found]:
        for some in self._pieces(asking):
            one = self.vectors.take(_slice(some))
            for others in self._pieces(answering):
                other = self.vectors.take(_slice(others))
                for a, b, cosine in close_pairs(one, other, self.tau, self.memory_mb / 2, self.device):
                    a, b = some[a], others[b]
                    apart = a != b
                    yield a[apart], b[apart], cosine[apart]

    def _pieces(self, rows: np.ndarray) -> list[np.ndarray]:
        """As many rows at once as fill a quarter of the memory when they are copied together."""
        size = self.vectors.stored.shape[1] * self.vectors.stored.itemsize
        most = max(1, int(self.memory_mb * 2**20 / 4 / size))
        return [rows[start : start + most] for start in range(0, len(rows), most)]

    def _first(self, cluster: int, step: Step, asks: np.ndarray, answers: np.ndarray) -> Found:
        best = _nothing()
        for asking, answering, cosine in self._between(cluster, step, asks, answers):
            earlier = self.rank[answering] < self.rank[asking]
            best = earliest([best, (asking[earlier], answering[earlier], cosine[earlier])], self.rank)
        return best

    def _links(self, cluster: int, step: Step, asks: np.ndarray, answers: np.ndarray, label: np.ndarray) -> Found:
        links = np.empty((0, 2), np.int64)
        for asking, answering, _ in self._between(cluster, step, asks, answers):
            new = np.stack([label[asking], label[answering]], axis=1)
            links = np.unique(np.concatenate([links, new[new[:, 0] != new[:, 1]]]), axis=0)
        return links[:, 0], links[:, 1], np.full(len(links), np.nan, np.float32)

    def _residents(self, cluster: int, chosen: np.ndarray) -> np.ndarray:
        start, stop = self.starts[cluster], self.starts[cluster + 1]
        return start + np.flatnonzero(chosen[start:stop])


def joined_up(found: list[Found]) -> Found:
    rows, by, cosine = (np.concatenate(parts) for parts in zip(_nothing(), *found, strict=True))
    return rows, by, cosine


def earliest(found: list[Found], rank: np.ndarray) -> Found:
    """Of each row's entries the one that is earliest in keep order, ascending by row."""
    rows, by, cosine = joined_up(found)
    order = np.lexsort((rank[by], rows))
    order = order[np.diff(rows[order], prepend=-1) != 0]
    return rows[order], by[order], cosine[order]


def _nothing() -> Found:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)


def _slice(rows: np.ndarray) -> slice | np.ndarray:
    """Ascending rows as a slice where they follow one another, so that mapped vectors are not copied."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
