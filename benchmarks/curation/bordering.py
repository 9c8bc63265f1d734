"""Planted rows under k centroids, searched for copies as `dedup` does, in one process."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.curation.planted import Planted
from stages.curate.kmeans import half_units, make_engine, single_threads, train
from stages.curate.kmeans.assign import Nearest
from stages.curate.semantic.across import LocalSearch
from stages.curate.semantic.border import Border, Visits, exact_visits, margin_visits, overhang
from stages.curate.semantic.clustered import Clustered
from stages.curate.semantic.rules import Rule
from stages.curate.semantic.similarity import close_pairs
from stages.curate.semantic.sketches import Sketches, sketch_directions, sketches_of
from stages.curate.vectors import Vectors
from stages.dedup import DedupSection

TAU = 0.95
NEIGHBOURS = 8
ITERATIONS = 10
_BLOCK = 25_000


@dataclass(frozen=True)
class Setting:
    """Rows by cluster and keep order (farthest from the centroid first), as `Clustered` has them.

    Attributes:
        near, cosines: the nearest centroids of each row and the cosines to them, (n, NEIGHBOURS).
        distinct: planted images of their own.
    """

    vectors: Vectors
    rank: np.ndarray
    starts: np.ndarray
    near: np.ndarray
    cosines: np.ndarray
    centroids: np.ndarray
    distinct: np.ndarray

    @classmethod
    def of(cls, planted: Planted, k: int) -> "Setting":
        vectors = Vectors.of(planted.vectors)
        with single_threads(1) as run:
            engine = make_engine("torch", half_units(vectors), "cpu", run)
            centroids = train(engine, k, iterations=ITERATIONS, seed=(0,)).centroids
            near, cosines = Nearest(centroids, run=run).search(vectors, NEIGHBOURS)
        rank = np.argsort(np.argsort(cosines[:, 0], kind="stable"))
        order = np.lexsort((rank, near[:, 0]))
        starts = np.searchsorted(near[order, 0], np.arange(k + 1))
        return cls(
            vectors.take(order),
            rank[order],
            starts,
            near[order],
            cosines[order].astype(np.float32),
            centroids,
            planted.distinct[order],
        )

    @property
    def cluster(self) -> np.ndarray:
        own: np.ndarray = self.near[:, 0]
        return own

    def visits(self, border: Border) -> Visits:
        k = len(self.centroids)
        match border:
            case "none":
                return Visits.none(k)
            case "margin":
                margin = DedupSection.model_fields["border_margin"].default * (1 - TAU**2) ** 0.5
                found = margin_visits(
                    self.cluster, self.cosines[:, 0], self.near[:, 1:], self.cosines[:, 1:], self.centroids, margin
                )
            case "exact":
                worst = overhang(self.vectors, self.cluster, self.centroids)
                found = exact_visits(self.vectors, self.cluster, self.centroids, worst, TAU)
        return Visits.of(*found, k)

    def search(self, border: Border, rule: Rule = "greedy") -> tuple[np.ndarray, Visits]:
        """Which row each goes because of, -1 where it stays, and who visited."""
        visits = self.visits(border)
        rows = Clustered(self.vectors, self.rank, self.starts, visits, TAU)
        if border != "none":
            some = np.linspace(0, len(self.centroids) - 1, 64).astype(int).tolist()
            directions = sketch_directions(self.vectors, rows.meetings(some), TAU)
            if directions.shape[1]:
                bits = sketches_of(self.vectors, slice(0, len(self.vectors)), directions)
                rows = replace(rows, sketches=Sketches(bits, directions, TAU))
        return LocalSearch(rows).duplicates(rule, borders=border != "none")[0], visits


@dataclass(frozen=True)
class Truth:
    """All pairs of different rows above the threshold, each once, by brute force."""

    one: np.ndarray
    other: np.ndarray
    rows: int

    @classmethod
    def of(cls, vectors: Vectors) -> "Truth":
        n = len(vectors)
        found = [np.empty((2, 0), np.int64)]
        for start in range(0, n, _BLOCK):
            part = vectors.take(slice(start, start + _BLOCK))
            for a, b, _ in close_pairs(part, vectors.take(slice(start, n)), TAU, memory_mb=400):
                found.append(np.stack([a, b])[:, a < b] + start)
        one, other = np.concatenate(found, axis=1)
        return cls(one, other, n)

    def compared(self, cluster: np.ndarray, visits: Visits) -> np.ndarray:
        """Which of the pairs a search compared."""
        keys = np.repeat(np.arange(len(visits.starts) - 1), np.diff(visits.starts)) * self.rows + visits.rows
        seen = cluster[self.one] == cluster[self.other]
        for row, visited in ((self.one, cluster[self.other]), (self.other, cluster[self.one])):
            key = visited.astype(np.int64) * self.rows + row
            at = np.minimum(np.searchsorted(keys, key), max(len(keys) - 1, 0))
            seen |= keys[at] == key if len(keys) else False
        return seen

    def touched(self, pairs: np.ndarray) -> np.ndarray:
        """Rows in some of the pairs, bool of (n,)."""
        rows = np.zeros(self.rows, bool)
        rows[self.one[pairs]] = rows[self.other[pairs]] = True
        return rows

    def beside(self, kept: np.ndarray) -> np.ndarray:
        """Rows with a kept one above the threshold, bool of (n,)."""
        rows = np.zeros(self.rows, bool)
        rows[self.one[kept[self.other]]] = True
        rows[self.other[kept[self.one]]] = True
        return rows


def cpu(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gave, and its CPU seconds."""
    before = time.process_time()
    return work(), time.process_time() - before
