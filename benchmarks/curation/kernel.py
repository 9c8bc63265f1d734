"""Duplicates inside clusters against SemDeDup's rule as it was published: the same rows, in which time and memory.

python -m benchmarks.curation.kernel FILE RULE  # megabytes that rows (.npy) take as one cluster, and CPU seconds
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.curation.figure import Figure
from benchmarks.curation.losses import losses
from benchmarks.curation.planted import Planted, topics
from benchmarks.memory import watched_memory
from benchmarks.threads import torch_threads
from stages.curate.semantic import blocks
from stages.curate.semantic.bounds import Bounds, fast_bfloat16
from stages.curate.semantic.rules import Rule, duplicates_within
from stages.curate.semantic.similarity import close_pairs
from stages.curate.semantic.tiles import Prepared, Screen, Tiling
from stages.curate.vectors import Vectors

TAU = 0.95
TAUS = (0.97, 0.95, 0.93, 0.8)
ORDERS = ("hard", "easy", "random")
RULES: tuple[Rule, ...] = ("semdedup", "greedy", "components")
NEAR = 1e-6
"""Float32 cosines this near to the threshold may fall on either side of it in the anchor."""
ITERATIONS = 10
MEMORY_MB = 100


@dataclass(frozen=True)
class Size:
    """Clusters of one size.

    Attributes:
        k: centroids for all rows.
        timed: about how many rows are timed.
        least: times faster than the anchor, at TAU.
    """

    k: int
    timed: int
    least: float


FULL = {
    "300": Size(1000, 60_000, 1),
    "1.2k": Size(200, 60_000, 3),
    "5k": Size(50, 60_000, 12),
    "12k": Size(20, 40_000, 20),
}
QUICK_ROWS, QUICK_K = 5_000, 4
ROUNDS = 3


def measure(quick: bool) -> list[Figure]:
    """Quick, only what each rule decides: times of so few rows say nothing."""
    planted = topics(QUICK_ROWS if quick else 200_000, 0)
    with torch_threads(1):
        if quick:
            some = _clusters(planted, QUICK_K)
            return [*_decided(some), *_left_alone(some, planted.distinct)]
        clustered = {name: _clusters(planted, size.k) for name, size in FULL.items()}
        timed = {name: _some(clustered[name], size.timed) for name, size in FULL.items()}
        small = next(iter(FULL))
        return [
            *_decided(_some(clustered["1.2k"], 20_000)),
            *(figure for name, size in FULL.items() for figure in _times(timed[name], size.least)),
            *_any_threshold(timed["5k"]),
            *_rate(timed["5k"]),
            *_left_alone(clustered[small], planted.distinct),
            *_memory(300_000),
        ]


@dataclass(frozen=True)
class Cluster:
    """Rows in keep order, farthest from their centroid first.

    Attributes:
        rows: numbers among all.
    """

    rows: np.ndarray
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.rows)

    def reordered(self, order: str) -> "Cluster":
        at = np.arange(len(self))
        if order == "easy":
            at = at[::-1].copy()
        elif order == "random":
            at = np.random.default_rng(0).permutation(at)
        return replace(self, rows=self.rows[at], vectors=self.vectors.take(at))


def _clusters(planted: Planted, k: int) -> list[Cluster]:
    import faiss

    faiss.omp_set_num_threads(1)
    unit = Vectors.of(planted.vectors).unit(slice(None))
    kmeans = faiss.Kmeans(
        unit.shape[1], k, niter=ITERATIONS, spherical=True, seed=1, max_points_per_centroid=max(40, 5000 // k)
    )
    kmeans.train(unit)
    cosine, label = (found[:, 0] for found in kmeans.index.search(unit, 1))
    order = np.lexsort((cosine, label))
    parts = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return [Cluster(rows, Vectors.of(planted.vectors[rows])) for rows in parts]


def _some(clusters: list[Cluster], rows: int) -> list[Cluster]:
    """About so many rows in clusters of all sizes."""
    by_size = sorted(clusters, key=len)
    step = max(1, round(sum(map(len, clusters)) / rows))
    return by_size[step // 2 :: step]


def greatest_before(unit: torch.Tensor) -> torch.Tensor:
    """The anchor: the greatest cosine of each row to one before it, at least 0; float32 of (n,).

    As SemDeDup's semdedup.py has it: all n x n cosines, those of rows with themselves put to 0, a copy of the upper
    triangle, and the maximum of each column. A row goes where that is above 1 - epsilon.
    """
    cosines = unit @ unit.T
    cosines.fill_diagonal_(0)
    return torch.triu(cosines, diagonal=1).max(dim=0).values


def _anchor(unit: np.ndarray) -> np.ndarray:
    greatest: np.ndarray = greatest_before(torch.from_numpy(unit)).numpy()
    return greatest


def _decided(clusters: list[Cluster]) -> list[Figure]:
    """Rows that the rule `semdedup` decides otherwise than the anchor."""
    differ, near = 0, 0
    for order in ORDERS:
        for cluster in clusters:
            vectors = cluster.reordered(order).vectors
            greatest = _anchor(vectors.unit(slice(None))).astype(np.float64)
            for tau in TAUS:
                other = (duplicates_within(vectors, tau, "semdedup")[0] >= 0) != (greatest > tau)
                close = np.abs(greatest - tau) <= NEAR
                differ += int((other & ~close).sum())
                near += int((other & close).sum())
    rows = sum(map(len, clusters)) * len(ORDERS) * len(TAUS)
    return [
        Figure(
            f"rows that rule semdedup decides otherwise, of {rows:,}",
            differ,
            0,
            at_most=True,
            against="SemDeDup's kernel",
            exact=True,
            note=f"orders {', '.join(ORDERS)}; thresholds {', '.join(map(str, TAUS))}; {near} more rows whose greatest "
            f"cosine lies within {NEAR} of the threshold",
        )
    ]


def _times(clusters: list[Cluster], least: float) -> list[Figure]:
    anchor, ours = _seconds(clusters, TAU)
    size = _size(clusters)
    return [
        Figure(
            f"rule semdedup, clusters of {size:,.0f} rows, threshold {TAU}",
            statistics.median(a / b for a, b in zip(anchor, ours["semdedup"], strict=True)),
            least,
            unit="x",
            against="SemDeDup's kernel",
            note="times faster; " + _per_row(clusters, anchor, ours),
        ),
        Figure(
            f"rule greedy, clusters of {size:,.0f} rows, threshold {TAU}",
            statistics.median(a / b for a, b in zip(ours["greedy"], ours["semdedup"], strict=True)),
            1.6,
            at_most=True,
            unit="x",
            against="the time of rule semdedup",
        ),
    ]


def _any_threshold(clusters: list[Cluster]) -> list[Figure]:
    found = []
    for tau in (0.97, 0.93, 0.8, 0.6):
        anchor, ours = _seconds(clusters, tau)
        ratio = statistics.median(a / b for a, b in zip(anchor, ours["semdedup"], strict=True))
        found.append(
            Figure(
                f"rule semdedup, clusters of {_size(clusters):,.0f} rows, threshold {tau}",
                ratio,
                6,
                unit="x",
                against="SemDeDup's kernel",
                note="times faster; " + _per_row(clusters, anchor, ours),
            )
        )
    return found


def _seconds(clusters: list[Cluster], tau: float) -> tuple[list[float], dict[Rule, list[float]]]:
    """CPU seconds of the anchor, which is given float32 unit rows, and of the rules, given rows as they are stored."""
    anchor: list[float] = []
    ours: dict[Rule, list[float]] = {"semdedup": [], "greedy": []}
    for rule in ours:
        duplicates_within(clusters[0].vectors, tau, rule)
    for _ in range(ROUNDS):
        spent: dict[str, float] = dict.fromkeys(["anchor", *ours], 0.0)
        for cluster in clusters:
            spent["anchor"] += _cpu(partial(_anchor, cluster.vectors.unit(slice(None))))
            for rule in ours:
                spent[rule] += _cpu(partial(duplicates_within, cluster.vectors, tau, rule))
        anchor.append(spent["anchor"])
        for rule in ours:
            ours[rule].append(spent[rule])
    return anchor, ours


def _rate(clusters: list[Cluster]) -> list[Figure]:
    """How fast pairs are decided, in terms of one product of whole rows at the machine's best."""
    d = clusters[0].vectors.stored.shape[1]
    pairs = sum(len(cluster) ** 2 / 2 for cluster in clusters)
    rates = {dtype: _product_rate(dtype, d) for dtype in (torch.bfloat16, torch.float32)}

    def whole() -> None:
        bounds = Bounds(TAU, fast_bfloat16("cpu"))
        tiling = Tiling.within(MEMORY_MB, bounds)
        for cluster in clusters:
            prepared = Prepared(cluster.vectors, np.arange(len(cluster)), bounds, tiling)
            blocks.first_earlier(Screen(prepared, prepared, TAU, bounds, tiling))

    def chosen() -> None:
        for cluster in clusters:
            duplicates_within(cluster.vectors, TAU, "semdedup")

    figures = []
    for words, work in (("with whole rows", whole), ("as it is", chosen)):
        rate = pairs * 2 * d / _cpu(work)
        figures.append(
            Figure(
                f"pairs of earlier rows decided, {words}, clusters of {_size(clusters):,.0f} rows",
                rate / rates[torch.bfloat16],
                unit="x",
                against="bfloat16 products of whole rows",
                note=f"{rate / rates[torch.float32]:.2f} of float32 products; this machine takes "
                f"{rates[torch.bfloat16] / 1e9:.0f} and {rates[torch.float32] / 1e9:.0f} GF/s; no pair of a row that "
                "went is looked at again, and every pair is counted",
            )
        )
    return figures


def _product_rate(dtype: torch.dtype, d: int) -> float:
    """Floating-point operations a CPU second."""
    one, other = (torch.randn(1024, d).to(dtype) for _ in range(2))
    return 2 * 1024 * 1024 * d / min(_cpu(lambda: one @ other.T) for _ in range(8))


def _left_alone(clusters: list[Cluster], distinct: np.ndarray) -> list[Figure]:
    """What each rule removes for good, inside clusters."""
    figures = []
    for rule in RULES:
        removed, alone, lost = 0, 0, 0
        for cluster in clusters:
            gone = duplicates_within(cluster.vectors, TAU, rule)[0] >= 0
            beside = np.zeros(len(cluster), bool)
            for rows, _, _ in close_pairs(cluster.vectors, cluster.vectors.take(np.flatnonzero(~gone)), TAU):
                beside[rows] = True
            removed += int(gone.sum())
            alone += int((gone & ~beside).sum())
            lost += int((gone & ~beside & distinct[cluster.rows]).sum())
        where = f"inside clusters of {_size(clusters):,.0f} rows, threshold {TAU}"
        figures += losses(rule, "neighbour", where, removed, alone, lost, int(distinct.sum()))
    return figures


def _memory(rows: int) -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for words, make in (("planted", _planted_rows), ("much alike", _alike_rows)):
            path = Path(folder) / "rows.npy"
            np.save(path, make(rows))
            for rule in RULES:
                if rule == "components" and make is _planted_rows:
                    continue  # takes every pair, at the same memory
                command = [sys.executable, "-m", "benchmarks.curation.kernel", str(path), rule]
                done = subprocess.run(
                    command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
                )
                extra, seconds = map(float, done.stdout.split())
                figures.append(
                    Figure(
                        f"memory beside the rows of one cluster of {rows:,} rows {words}, rule {rule}",
                        extra,
                        MEMORY_MB,
                        at_most=True,
                        unit="MB",
                        note=f"in a process of its own, {seconds:.1f} CPU s; SemDeDup's kernel takes 8 n^2 bytes, here "
                        f"{8 * rows**2 / 1e9:,.0f} GB",
                    )
                )
    return figures


def _planted_rows(rows: int) -> np.ndarray:
    return topics(rows, 0).vectors


def _alike_rows(rows: int) -> np.ndarray:
    """One picture, each time a little different."""
    rng = np.random.default_rng(0)
    stored = np.tile(topics(100, 0).vectors[:1], (rows, 1))
    for start in range(0, rows, 4096):
        block = stored[start : start + 4096]
        block += (0.002 * rng.standard_normal(block.shape, np.float32)).astype(np.float16)
    return stored


def _extra_memory(path: Path, rule: Rule) -> tuple[float, float]:
    """Most anonymous megabytes that the rows of a file, as one cluster, take beside them; and CPU seconds."""
    torch.set_num_threads(1)
    with watched_memory() as memory:
        vectors = Vectors.of(np.load(path, mmap_mode="r"))
        seconds = _cpu(lambda: duplicates_within(vectors, TAU, rule, MEMORY_MB))
    return memory.most - memory.before, seconds


def _size(clusters: list[Cluster]) -> float:
    """Rows of the cluster that a row is in, in the mean."""
    sizes = np.array([len(cluster) for cluster in clusters], np.float64)
    return float((sizes**2).sum() / sizes.sum())


def _per_row(clusters: list[Cluster], anchor: list[float], ours: dict[Rule, list[float]]) -> str:
    rows = sum(map(len, clusters)) / 1e6
    each = [("anchor", anchor), *ours.items()]
    return ", ".join(f"{name} {statistics.median(seconds) / rows:.1f}" for name, seconds in each) + " us a row"


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    print(*_extra_memory(Path(sys.argv[1]), sys.argv[2]))  # type: ignore[arg-type]
