"""Comparing chosen rows inside clusters and across the borders that they visit; one cluster in memory at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.curate.semantic.border import Visits
from stages.curate.semantic.cosine import exact_cosines
from stages.curate.semantic.rules import Rule, duplicates_within
from stages.curate.semantic.similarity import close_pairs
from stages.curate.semantic.sketches import Meeting, Sketches
from stages.curate.vectors import Vectors

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rows, the row that each was held against (both int64 of (m,)), and their cosine (float32 of (m,))."""

_PAIRS = 1 << 17
"""Pairs gathered before something is done about them."""


@dataclass(frozen=True)
class Step:
    """What is asked of each cluster.

    Attributes:
        kind: `within` applies a rule to the asking rows of each cluster: every one of them, the row because of which it
            goes or -1, and the cosine or NaN. The others compare rows that ask with rows that answer where one of the
            two visits the other's cluster: `pairs` gives all close pairs; `first` for each asking row the earliest
            close answering one, where that is earlier in keep order; `fate` the same, and where there is none all later
            ones, which the row would suppress; `links` gives pairs of `label` that a close pair links, each once, with
            NaN for a cosine.
        rule: of `within`.
        own: rows are compared in their own clusters too.
        mutual: the rows that ask and those that answer are the same.
    """

    kind: Literal["within", "pairs", "first", "fate", "links"]
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
        sketches: of all rows, where they serve; results are the same.
        memory_mb, device: of the comparisons.
    """

    vectors: Vectors
    rank: np.ndarray
    starts: np.ndarray
    visits: Visits
    tau: float
    sketches: Sketches | None = None
    memory_mb: float = 100
    device: str = "cpu"

    def take(
        self, step: Step, clusters: range, asks: np.ndarray, answers: np.ndarray, label: np.ndarray | None
    ) -> Found:
        """What a step finds in some clusters.

        Args:
            asks, answers: bool of (n,).
            label: int64 of (n,); of `links`.
        """
        concerned = self._concerned(step, clusters, asks)
        if step.kind == "within":
            return joined_up([self._within(cluster, step.rule, asks) for cluster in concerned])
        pairs = self._close(pair for cluster in concerned for pair in self._meeting(cluster, step, asks, answers))
        match step.kind:
            case "pairs":
                return joined_up(list(pairs))
            case "links":
                assert label is not None
                return _linked(pairs, label)
            case _:
                return self._first(pairs, behind=step.kind == "fate")

    def meetings(self, clusters: Sequence[int]) -> list[Meeting]:
        """The visitors of some clusters, and those who live there, where there are any."""
        met = [(self.visits.to(cluster), np.arange(*self.starts[cluster : cluster + 2])) for cluster in clusters]
        return [(visitors, residents) for visitors, residents in met if len(visitors) and len(residents)]

    def _concerned(self, step: Step, clusters: range, asks: np.ndarray) -> list[int]:
        """Clusters in which rows that ask lie, or which they visit."""
        ends = np.arange(clusters.start, clusters.stop + 1)
        starts = self.starts[ends]
        asking = np.diff(_running(asks[starts[0] : starts[-1]])[starts - starts[0]])
        if step.kind != "within":
            asking += np.diff(_running(asks[self.visits.rows])[self.visits.starts[ends]])
        return (clusters.start + np.flatnonzero(asking)).tolist()

    def _within(self, cluster: int, rule: Rule, asks: np.ndarray) -> Found:
        rows = self._residents(cluster, asks)
        by, cosine = duplicates_within(self.vectors.take(_slice(rows)), self.tau, rule, self.memory_mb, self.device)
        return rows, np.where(by < 0, -1, rows[by]), cosine

    def _meeting(self, cluster: int, step: Step, asks: np.ndarray, answers: np.ndarray) -> Iterator[Meeting]:
        """Rows that ask, and those that each of them meets."""
        visitors = self.visits.to(cluster)
        residents = self._residents(cluster, asks)
        asking = visitors[asks[visitors]]
        if step.own:
            asking = np.concatenate([asking, residents])
        if len(asking):
            yield asking, self._residents(cluster, answers)
        if len(residents) and not step.mutual:
            yield residents, visitors[answers[visitors]]

    def _close(self, meeting: Iterator[Meeting]) -> Iterator[Found]:
        """All close pairs, many at a time."""
        held: list[Found] = []
        for pairs in self._verified(meeting) if self.sketches else self._compared(meeting):
            held.append(pairs)
            if sum(len(a) for a, _, _ in held) >= _PAIRS:
                yield joined_up(held)
                held = []
        yield joined_up(held)

    def _verified(self, meeting: Iterator[Meeting]) -> Iterator[Found]:
        """By sketches; the exact cosine decides what they let pass."""
        assert self.sketches is not None
        held: list[Meeting] = []
        size = 0
        for asking, answering in meeting:
            for pairs, crowd in self.sketches.candidates(asking, answering):
                yield from self._compared(iter([crowd]))
                held.append(pairs)
                size += len(pairs[0])
                if size >= _PAIRS:
                    yield from self._decided(held)
                    held, size = [], 0
        yield from self._decided(held)

    def _decided(self, held: list[Meeting]) -> Iterator[Found]:
        if held:
            a, b = (np.concatenate(side) for side in zip(*held, strict=True))
            a, b = a[a != b], b[a != b]
            cosine = exact_cosines(self.vectors, a, self.vectors, b)
            close = cosine > self.tau
            yield a[close], b[close], cosine[close].astype(np.float32)

    def _compared(self, meeting: Iterator[Meeting]) -> Iterator[Found]:
        """By whole rows."""
        for asking, answering in meeting:
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

    def _first(self, pairs: Iterator[Found], behind: bool) -> Found:
        best, later = _nothing(), [_nothing()]
        for asking, answering, cosine in pairs:
            ahead = self.rank[answering] < self.rank[asking]
            best = earliest([best, (asking[ahead], answering[ahead], cosine[ahead])], self.rank)
            if behind:
                later.append((asking[~ahead], answering[~ahead], cosine[~ahead]))
        rows, others, cosine = joined_up(later)
        free = ~np.isin(rows, best[0])
        return joined_up([best, (rows[free], others[free], cosine[free])])

    def _residents(self, cluster: int, chosen: np.ndarray) -> np.ndarray:
        start, stop = self.starts[cluster], self.starts[cluster + 1]
        return start + np.flatnonzero(chosen[start:stop])


def _linked(pairs: Iterator[Found], label: np.ndarray) -> Found:
    links = np.empty((0, 2), np.int64)
    for asking, answering, _ in pairs:
        new = np.stack([label[asking], label[answering]], axis=1)
        links = np.unique(np.concatenate([links, new[new[:, 0] != new[:, 1]]]), axis=0)
    return links[:, 0], links[:, 1], np.full(len(links), np.nan, np.float32)


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


def _running(mask: np.ndarray) -> np.ndarray:
    """How many are set before each place, and in all."""
    return np.concatenate([[0], np.cumsum(mask)])


def _slice(rows: np.ndarray) -> slice | np.ndarray:
    """Ascending rows as a slice where they follow one another, so that mapped vectors are not copied."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
