"""k-means against FAISS' own, and the exact assignment against the machine's rate and brute force."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.curation.figure import Figure
from benchmarks.curation.planted import continuous, topics
from stages.curate.kmeans import Trained, half_units, make_engine, single_threads, train
from stages.curate.kmeans.assign import Nearest
from stages.curate.kmeans.engine import Engine
from stages.curate.vectors import Vectors

ITERATIONS = 10
SEED = 1
NEIGHBOURS = 8
SETS = {"topics": topics, "continuous": continuous}
SPEED = {1000: 3.0, 4000: 4.5}
"""Least ratio of CPU seconds, by k."""
WORSE = 1.0
"""Per cent of 1 - cosine."""
SHARE = 0.7
SHARED_FROM = 16_000
"""Centroids from which exact cosines, which cost a row the same at any k, must leave the rate its share."""
CHECKED = 4096


def measure(quick: bool) -> list[Figure]:
    rows = 5_000 if quick else 200_000
    ks = (300,) if quick else tuple(SPEED)
    figures = []
    for name, planted in SETS.items():
        vectors = Vectors.of(planted(rows, seed=SEED).vectors)
        for k in ks:
            # FAISS at 4000 takes a minute: once is enough
            if quick or name == "topics" or k == min(ks):
                trained, some = _training(vectors, k, name, quick)
                figures += some
                figures += _assignment(vectors, trained.centroids, name, quick)
    if not quick:
        drawn = vectors.unit(np.arange(16_384))
        figures += _assignment(vectors.take(slice(0, 16_384)), drawn, "continuous, rows as centroids", quick)
    return figures


def _training(vectors: Vectors, k: int, name: str, quick: bool) -> tuple[Trained, list[Figure]]:
    rows = half_units(vectors)
    single = rows.astype(np.float32)
    # both begin with the same rows
    first = single[np.random.default_rng([SEED, 0]).permutation(len(rows))[:k]]
    with single_threads(1) as run:
        trained, ours = _timed(
            lambda: train(make_engine("torch", rows, "cpu", run), k, iterations=ITERATIONS, seed=(SEED,))
        )
    centroids, theirs = _timed(lambda: _faiss(single, first))
    with single_threads(1) as run:
        engine = make_engine("torch", rows[:CHECKED], "cpu", run)
        share = np.median([_bare_seconds(vectors, first) * CHECKED / _pass_seconds(engine, first) for _ in range(5)])
    lacking = [1 - _objective(vectors, c) for c in (trained.centroids, centroids)]
    what = f"{len(rows):,} x {rows.shape[1]} rows, {name}, k = {k}"
    against = f"faiss.Kmeans, {ITERATIONS} iterations, spherical, the same first centroids"
    return trained, [
        Figure(
            f"speed of training, {what}",
            theirs / ours,
            None if quick else SPEED[k],
            unit="x",
            against=against,
            note=f"{ours:.1f} and {theirs:.1f} CPU s",
        ),
        Figure(
            f"1 - cosine after training, {what}",
            100 * (lacking[0] / lacking[1] - 1),
            None if quick else WORSE,
            at_most=True,
            unit="% more",
            against=against,
            note=f"{lacking[0]:.4f} and {lacking[1]:.4f}; of all rows, each with its nearest centroid",
        ),
        Figure(
            f"share of the bfloat16 rate, a full pass of training, {name}, k = {k}",
            float(share),
            None if quick else SHARE,
            against="torch.mm of the same shape in bfloat16",
            note="with reading float16 rows and the search for the greatest",
        ),
    ]


def _assignment(vectors: Vectors, centroids: np.ndarray, name: str, quick: bool) -> list[Figure]:
    some = vectors.take(slice(0, 32_768))
    k = len(centroids)
    figures = []
    for m in (1, NEIGHBOURS):
        with single_threads(1):
            nearest = Nearest(centroids)
            nearest.search(some.take(slice(0, CHECKED)), m)  # products of a new shape are compiled once
            shares = []
            for _ in range(1 if quick else 3):
                bare = _bare_seconds(some, centroids)
                (numbers, _), seconds = _timed(lambda: nearest.search(some, m))  # noqa: B023
                shares.append(bare * len(some) / seconds)
        differ = _differ(some.take(slice(0, CHECKED)), centroids, numbers[:CHECKED])
        what = f"assignment to the {m} nearest of {k:,}" if m > 1 else f"assignment to the nearest of {k:,}"
        figures += [
            Figure(
                f"share of the bfloat16 rate, {what}, {name}",
                float(np.median(shares)),
                SHARE if k >= SHARED_FROM else None,
                against="torch.mm of the same shape in bfloat16",
                note="with reading float16 rows, candidates, and exact cosines of them",
            ),
            Figure(
                f"rows that differ, {what}, {name}",
                differ,
                0,
                at_most=True,
                against=f"brute force in float64, {CHECKED:,} rows",
                exact=True,
            ),
        ]
    return figures


def _faiss(rows: np.ndarray, first: np.ndarray) -> np.ndarray:
    import faiss

    faiss.omp_set_num_threads(1)
    kmeans = faiss.Kmeans(
        rows.shape[1],
        len(first),
        niter=ITERATIONS,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    kmeans.train(rows, init_centroids=first)
    return np.asarray(kmeans.centroids, np.float32)


def _objective(vectors: Vectors, centroids: np.ndarray) -> float:
    with single_threads(1):
        return float(Nearest(centroids).search(vectors, 1)[1].mean())


def _pass_seconds(engine: Engine, centroids: np.ndarray) -> float:
    return _timed(lambda: engine.nearest(centroids, None))[1]


def _bare_seconds(vectors: Vectors, centroids: np.ndarray) -> float:
    """CPU seconds of one row's products, and nothing else."""
    import torch

    rows = torch.from_numpy(vectors.unit(slice(0, CHECKED))).bfloat16()
    against = torch.from_numpy(centroids).bfloat16()
    out = torch.empty(len(rows), len(against), dtype=torch.bfloat16)
    return min(_timed(lambda: torch.mm(rows, against.T, out=out))[1] for _ in range(3)) / len(rows)


def _differ(vectors: Vectors, centroids: np.ndarray, numbers: np.ndarray) -> int:
    """Rows whose centroids are not those of the greatest float64 products, ties to the lower number."""
    differ = 0
    for start in range(0, len(vectors), 1024):
        dots = vectors.unit(slice(start, start + 1024)).astype(np.float64) @ centroids.T.astype(np.float64)
        order = np.argsort(-dots, axis=1, kind="stable")[:, : numbers.shape[1]]
        found = numbers[start : start + 1024]
        # what lies closer than the products' own error is as good
        best, ours = (np.take_along_axis(dots, some, 1) for some in (order, found))
        differ += int(((order != found) & (np.abs(best - ours) > 1e-13)).any(axis=1).sum())
    return differ


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    before = time.process_time()
    return work(), time.process_time() - before
