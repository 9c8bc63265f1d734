"""Lloyd's iterations on the unit sphere: starts, updates, empty clusters, an end."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from stages.curate.kmeans.engine import Engine

if TYPE_CHECKING:
    from torch import Tensor

FULL_ITERATIONS = 2
"""Of each start, in which every row is held against every centroid; after them an engine may look near by alone."""
DONOR_ROWS = 4096
"""Of a cluster that is searched for the row farthest from its centroid; training rows stand in random order."""
SPREAD = 1e-6
"""1 - cosine of that row, below which a cluster has nothing to give."""


@dataclass(frozen=True)
class Trained:
    """What training found.

    Attributes:
        centroids: unit vectors, float32 of (k, d).
        labels: centroid of each training row in the last iteration, int32 of (n,).
        objective: mean cosine of the training rows to the centroids made of them, after each iteration.
        reseeded: how many empty clusters were given a row.
    """

    centroids: np.ndarray
    labels: np.ndarray
    objective: tuple[float, ...] = ()
    reseeded: int = 0


@dataclass(frozen=True)
class State:
    """Between two iterations: going on from here gives the same bytes as never having stopped.

    Attributes:
        start: number of the start under way.
        now: of that start.
        best: of the starts before it.
    """

    start: int
    now: Trained | None = None
    best: Trained | None = field(default=None, repr=False)


def train(
    engine: Engine,
    k: int,
    *,
    iterations: int,
    seed: Sequence[int],
    starts: int = 1,
    tolerance: float = 0.0,
    state: State | None = None,
    keep: Callable[[State], None] = lambda state: None,
) -> Trained:
    """k centroids from an engine's rows; of several starts the one of the greatest objective.

    The first centroids are rows drawn by the seed. An iteration gives every row a centroid, makes each centroid the
    direction of its rows' sum, and gives every empty cluster a row of a large one that lies far from its centroid. A
    start ends where the objective gains no more than `tolerance` of what it lacks to 1. Without rows the centroids
    are zeros, which have no direction.

    Args:
        state: where an earlier call stopped.
        keep: called after every iteration.
    """
    d = engine.rows.shape[1]
    if len(engine.rows) == 0:
        return Trained(np.zeros((k, d), np.float32), np.empty(0, np.int32))
    state = state or State(0)
    while state.start < starts:
        now = _start(engine, k, iterations, [*seed, state.start], tolerance, state, keep)
        best = now if state.best is None or now.objective[-1] > state.best.objective[-1] else state.best
        state = State(state.start + 1, best=best)
        keep(state)
    assert state.best is not None
    return state.best


def _start(
    engine: Engine,
    k: int,
    iterations: int,
    seed: list[int],
    tolerance: float,
    state: State,
    keep: Callable[[State], None],
) -> Trained:
    every = np.arange(len(engine.rows))
    sums = engine.sums(k)
    if state.now is None:
        drawn = np.random.default_rng(seed).permutation(len(engine.rows))[:k]
        first = engine.take(np.resize(drawn, k)).cpu().numpy().astype(np.float32)
        now = Trained(first / np.linalg.norm(first, axis=1, keepdims=True), np.empty(0, np.int32))
    else:
        now = state.now
        engine.add(sums, every, now.labels)
    while len(now.objective) < iterations and not _stands(now, tolerance):
        full = len(now.objective) < FULL_ITERATIONS
        labels = engine.nearest(now.centroids, None if full else now.labels)
        if now.objective:
            moved = np.flatnonzero(labels != now.labels)
            engine.add(sums, moved, now.labels[moved], -1)
            engine.add(sums, moved, labels[moved])
        else:
            engine.add(sums, every, labels)
        reseeded = _reseed(engine, sums, labels, now.centroids)
        centroids, cosines = _directions(sums.cpu().numpy(), now.centroids)
        now = Trained(centroids, labels, (*now.objective, cosines / len(labels)), now.reseeded + reseeded)
        keep(replace(state, now=now))
    return now


def _stands(now: Trained, tolerance: float) -> bool:
    objective = now.objective
    return len(objective) > FULL_ITERATIONS and objective[-1] - objective[-2] <= tolerance * (1 - objective[-1])


def _directions(sums: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, float]:
    """Centroids, the former ones where a sum has no direction, and the sum of all rows' cosines to their own.

    The cosines of some rows to the direction of their sum add up to that sum's length.
    """
    lengths = np.sqrt(np.square(sums).sum(1))
    some = lengths > 0
    centroids = before.copy()
    centroids[some] = sums[some] / lengths[some, None]
    return centroids, float(lengths.sum())


def _reseed(engine: Engine, sums: "Tensor", labels: np.ndarray, centroids: np.ndarray) -> int:
    """Give every empty cluster a row of a large one, in place; how many got one.

    The largest cluster gives first, its farthest row; then it counts as half as large. A cluster whose rows are all
    the same gives none, so clusters stay empty where there are fewer distinct rows than clusters.
    """
    counts = np.bincount(labels, minlength=len(centroids))
    empty = np.flatnonzero(counts == 0).tolist()
    if not empty:
        return 0
    donors = [(-count, label) for label, count in enumerate(counts.tolist()) if count > 1]
    heapq.heapify(donors)
    by_label = np.argsort(labels, kind="stable")
    ends = counts.cumsum()
    offers: dict[int, list[int]] = {}
    given: list[int] = []
    while donors and len(given) < len(empty):
        size, label = heapq.heappop(donors)
        if label not in offers:
            rows = by_label[ends[label] - counts[label] : ends[label]][:DONOR_ROWS]
            offers[label] = _farthest(engine, rows, centroids[label])
        if offers[label]:
            given.append(offers[label].pop())
            heapq.heappush(donors, (size / 2, label))
    moved = np.array(given, np.int64)
    engine.add(sums, moved, labels[moved], -1)
    labels[moved] = empty[: len(given)]
    engine.add(sums, moved, labels[moved])
    return len(given)


def _farthest(engine: Engine, rows: np.ndarray, centroid: np.ndarray) -> list[int]:
    """Rows that a cluster can give, the farthest from its centroid last; one row always stays."""
    taken = engine.take(rows).cpu().numpy().astype(np.float64)
    if (taken == taken[0]).all():
        return []
    cosines = (taken * centroid).sum(1)
    order = np.argsort(-cosines, kind="stable")[1:]
    return [int(row) for row in rows[order]]
