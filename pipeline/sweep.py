"""What other thresholds of `dedup` would remove, from a sample of whole clusters; `dedup` itself need not have run.

The counts are those of the rules inside clusters. Copies that fall across a border are the border search's: it removes
a little more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.sample import SEED, Sample
from schemas.errors import RequestError
from stages.curate.exact import exact_duplicates
from stages.curate.perceptual import perceptual_duplicates
from stages.curate.ranking import shuffled
from stages.curate.semantic.cosine import exact_cosines
from stages.curate.semantic.rules import Rule, duplicates_within
from stages.curate.vectors import Vectors, uid_array
from stages.dedup.order import keep_order
from stages.dedup.section import DedupSection

EPSILONS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
RULES: tuple[Rule, ...] = ("greedy", "semdedup")

_PAIR_ROWS = 1000  # of one cluster, drawn by seed, whose pairs are looked at
_BLOCK = 256


@dataclass(frozen=True)
class Point:
    """One rule at one threshold.

    Attributes:
        rows: of the sample that reach the semantic step.
        removed: of those, the ones that would go.
        groups: kept rows that something would go for.
    """

    rule: str
    epsilon: float
    rows: int
    removed: int
    groups: int

    @property
    def share(self) -> float:
        return self.removed / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Pair:
    """Two rows of a sample, by number, and their cosine."""

    a: int
    b: int
    cosine: float


def parse_epsilons(text: str) -> list[float]:
    """`0.01,0.02` as numbers in order, each once. Raises RequestError where one is not above 0 and at most 1."""
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not all(0 < value <= 1 for value in values):
        raise RequestError(f"--epsilon takes numbers above 0 and at most 1, with commas between them, not `{text}`.")
    return values


def epsilons_with(own: float | None, asked: Sequence[float] = EPSILONS) -> list[float]:
    """The thresholds to try, the run's own among them."""
    return sorted({*asked, *([own] if own else [])})


def sweep(sample: Sample, config: DedupSection, epsilons: Sequence[float]) -> list[Point]:
    """Every rule at every threshold, on what the exact and perceptual steps leave of the sample, in keep order."""
    live = survivors(sample, config)
    clusters = list(_by_cluster(sample, live))
    vectors = compared(sample, config)
    points = []
    for rule in RULES:
        for epsilon in epsilons:
            removed = groups = 0
            for members in clusters:
                by, _ = duplicates_within(vectors.take(members), 1 - epsilon, rule)
                removed += int((by >= 0).sum())
                groups += len(np.unique(_roots(by)[by >= 0]))
            points.append(Point(rule, epsilon, len(live), removed, groups))
    return points


def compared(sample: Sample, config: DedupSection) -> Vectors:
    """The vectors as `dedup` compares them; where it centres them, on the mean of the sample."""
    vectors = Vectors.of(sample.vectors)
    return Vectors.of(sample.vectors, vectors.unit(slice(None)).mean(0)) if config.centring else vectors


def further_columns(config: DedupSection) -> dict[str, list[str]]:
    """What a sample's rows must hold beyond the usual to be put in keep order."""
    return {"ingest": ["aesthetic"]} if config.keep == "aesthetic" else {}


def survivors(sample: Sample, config: DedupSection) -> np.ndarray:
    """Row numbers of the sample that reach the semantic step, in keep order."""
    rows = sample.rows

    def columns(stage: str, dtypes: dict[str, str]) -> list[np.ndarray]:
        return [rows.column(name).to_numpy().astype(dtype) for name, dtype in dtypes.items()]

    live = keep_order(config, uid_array(rows), columns)
    if config.exact:
        live = live[exact_duplicates(np.array(rows.column("sha256").to_pylist(), "S64")[live]) < 0]
    if config.hamming is not None:
        live = live[perceptual_duplicates(rows.column("phash").to_numpy()[live], config.hamming)[0] < 0]
    return live


def pairs_near(
    sample: Sample, vectors: Vectors, rows: np.ndarray, taus: Sequence[float], count: int
) -> list[tuple[list[Pair], list[Pair]]]:
    """For each threshold, the pairs inside clusters whose cosine lies nearest to it: above it, and not above it.

    Every pair is compared of at most _PAIR_ROWS rows a cluster, drawn by seed. No row is in two pairs of one list.

    Args:
        vectors: of the sample, as they are compared.
        rows: numbers of the sample's rows to look at.
        count: most pairs of each list.
    """
    found: list[list[np.ndarray]] = [[] for _ in taus]
    drawn = rows[shuffled(uid_array(sample.rows)[rows], SEED)]
    for members in _by_cluster(sample, drawn):
        members = np.sort(members[:_PAIR_ROWS])
        unit = vectors.unit(members)
        for start in range(0, len(members), _BLOCK):
            block = unit[start : start + _BLOCK] @ unit[start:].T
            a, b = np.triu_indices(len(block), 1, block.shape[1])
            cosine = block[a, b]
            order = np.argsort(cosine, kind="stable")
            ascending = cosine[order]
            for tau, pairs in zip(taus, found, strict=True):
                at = int(np.searchsorted(ascending, tau, side="right"))
                near = order[max(0, at - 4 * count) : at + 4 * count]
                first, second = members[a[near] + start], members[b[near] + start]
                pairs.append(np.stack([first, second, exact_cosines(vectors, first, vectors, second)]))
    return [
        _two_sides(np.concatenate(pairs, axis=1) if pairs else np.zeros((3, 0)), tau, count)
        for tau, pairs in zip(taus, found, strict=True)
    ]


def _two_sides(pairs: np.ndarray, tau: float, count: int) -> tuple[list[Pair], list[Pair]]:
    nearest = pairs[:, np.lexsort((pairs[1], pairs[0], abs(pairs[2] - tau)))]
    above = nearest[2] > tau
    return _once(nearest[:, above], count), _once(nearest[:, ~above], count)


def _once(pairs: np.ndarray, count: int) -> list[Pair]:
    seen: set[int] = set()
    chosen: list[Pair] = []
    for a, b, cosine in pairs.T.tolist():
        if len(chosen) < count and not {a, b} & seen:
            seen |= {a, b}
            chosen.append(Pair(int(a), int(b), cosine))
    return chosen


def _by_cluster(sample: Sample, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each cluster, in the order in which they are given."""
    clusters = sample.rows.column("cluster").to_numpy()[rows]
    by_cluster = np.argsort(clusters, kind="stable")
    if len(rows):
        yield from np.split(rows[by_cluster], np.flatnonzero(np.diff(clusters[by_cluster])) + 1)


def _roots(by: np.ndarray) -> np.ndarray:
    """The kept row at the end of each row's chain; `by` points at earlier rows."""
    root = np.where(by < 0, np.arange(len(by)), by)
    while (further := root[root]).tolist() != root.tolist():
        root = further
    return root
