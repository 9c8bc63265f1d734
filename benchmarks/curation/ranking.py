"""Sorting rows by the distance to their centroid, cluster by cluster."""

import statistics

import numpy as np

from benchmarks.comparison import compare
from benchmarks.curation.figure import Figure
from stages.curate.ranking import places_within, ranked


def measure(quick: bool) -> list[Figure]:
    rows, clusters = (10_000, 50) if quick else (200_000, 1000)
    rng = np.random.default_rng(5)
    cluster = rng.integers(0, clusters, rows).astype(np.int32)
    cosine = rng.normal(0.7, 0.1, rows).astype(np.float32)
    uids = np.array([row.tobytes().hex() for row in rng.integers(0, 256, (rows, 16), np.uint8)], "S32")
    rounds = compare(
        lambda: lambda: places_within(ranked(cosine, uids), cluster),
        lambda: lambda: _python_sort(cosine, cluster, uids),
        np.array_equal,
        rounds=3,
    )
    return [
        Figure(
            f"speed of the sort by distance to the centroid, {rows:,} rows, {clusters:,} clusters",
            statistics.median(r.cpu_ratio for r in rounds),
            None if quick else 10,
            unit="x",
            against="rows of each cluster picked by a mask over all rows, then Python's sort over tuples, as SemDeDup "
            "does, without its files",
        )
    ]


def _python_sort(cosine: np.ndarray, cluster: np.ndarray, uids: np.ndarray) -> np.ndarray:
    """Each row's place in its cluster."""
    places = np.empty(len(cosine), np.int32)
    for number in range(int(cluster.max()) + 1):
        members = np.flatnonzero(cluster == number)
        tuples = zip(cosine[members].tolist(), uids[members].tolist(), members.tolist(), strict=True)
        for place, (_, _, row) in enumerate(sorted(tuples)):
            places[row] = place
    return places
