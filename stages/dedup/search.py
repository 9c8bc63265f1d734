"""The semantic search, done by the stage's workers; all that they find lies in `GatherInput.kept`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.base import A, GatherInput, R
from stages.curate.ranking import shuffle_keys
from stages.curate.recall import Recall, against_everything
from stages.curate.semantic.across import Search
from stages.curate.semantic.border import exact_visits, margin_visits, overhang
from stages.curate.semantic.clustered import Found, Step
from stages.curate.semantic.sketches import sketch_directions, sketches_of
from stages.curate.vectors import Vectors
from stages.dedup.layout import Layout, keys_of, lay_out, load, visits_name
from stages.dedup.section import DedupSection
from stages.kept import kept_array, kept_file

_PAIRS = 1 << 28
"""Pairs of rows in one piece of work: about a second. A constant, so that an interrupted search finds its pieces."""
_LITTLE = 8 * _PAIRS
"""Pairs that are compared here before workers are up."""
_ROWS = 1 << 18
"""Rows in one piece of what looks at rows one by one."""
_MEETINGS = 64
"""Clusters whose visitors show whether sketches serve."""
_OWN, _NEAR = ("cluster", "centroid_cosine"), {"near_clusters": -1, "near_cosines": np.nan}


@dataclass(frozen=True)
class _Limits:
    tau: float
    memory_mb: float
    device: str


def semantic_search(
    inputs: GatherInput, config: DedupSection, live: np.ndarray, cluster: np.ndarray, uids: np.ndarray, device: str
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Which of the live rows go because their vectors are close.

    Args:
        live: numbers of the rows that are searched, in keep order; int64 of (n,), at least one.
        cluster, uids: of all rows of the run.

    Returns:
        Place in `live` of the row because of which each goes (int64 of (n,), -1 where kept), the cosine to it (float32
        of (n,), NaN where kept), and the metrics.
    """
    assert config.epsilon is not None
    limits = _Limits(1 - config.epsilon, config.memory_mb, device)
    layout = lay_out(inputs, live, cluster, len(cluster), config.centring)
    layout = _with_visits(inputs, layout, config, limits.tau)
    if layout.visits:
        layout = _with_sketches(inputs, layout, limits.tau)
    search = _SpreadSearch(inputs, layout, limits)
    by, cosine = search.duplicates(config.rule, borders=layout.visits > 0)
    metrics: dict[str, float] = {}
    if config.recall_sample:
        draw = np.argsort(shuffle_keys(uids[live], config.seed + 1), kind="stable")[: config.recall_sample]
        place = np.sort(np.argsort(search.rank)[draw])
        metrics = _recall(inputs, layout, limits, place, by < 0).metrics()
    rank = np.asarray(search.rank)
    of_live, cosine_of_live = np.empty_like(by), np.empty_like(cosine)
    of_live[rank], cosine_of_live[rank] = np.where(by < 0, -1, rank[by]), cosine
    return of_live, cosine_of_live, metrics


class _SpreadSearch(Search):
    """Each step's pieces are ranges of clusters; what a piece finds is kept under the step's number."""

    def __init__(self, inputs: GatherInput, layout: Layout, limits: _Limits) -> None:
        super().__init__(layout.clustered(inputs.kept, np.empty(0, np.int64), limits.tau))
        self._inputs, self._layout, self._limits = inputs, layout, limits
        self._step = -1
        size = np.diff(self.rows.starts).astype(np.float64)
        visitors = sum((_visitors(inputs.kept, layout, number) for number in range(layout.visits)), np.zeros(len(size)))
        cost = size * (size / 2 + visitors)
        self._mean_cost = cost.sum() / layout.rows
        ends = np.flatnonzero(np.diff(cost.cumsum() // _PAIRS)) + 1
        self._ranges = [*zip([0, *ends.tolist()], [*ends.tolist(), len(size)], strict=True)]
        for _ in _done(inputs, _meet, [_Range(layout, *ends) for ends in self._ranges], len(self.rank) < _ROWS):
            pass

    def parts(self, step: Step, asks: np.ndarray, answers: np.ndarray, label: np.ndarray | None) -> Iterator[Found]:
        self._step += 1
        folder = self._inputs.kept / f"step-{self._step:03d}"
        folder.mkdir(exist_ok=True)
        kept_array(folder / "asks.npy", lambda: asks)
        kept_array(folder / "answers.npy", lambda: answers)
        kept_array(folder / "label.npy", lambda: np.empty(0, np.int64) if label is None else label)
        pieces = [_Piece(self._layout, self._limits, step, self._step, start, stop) for start, stop in self._ranges]
        little = np.count_nonzero(asks) * self._mean_cost < _LITTLE
        for path in _done(self._inputs, _take, pieces, little):
            with np.load(path) as found:
                yield found["rows"], found["by"], found["cosine"]


@dataclass(frozen=True)
class _Range:
    """Of clusters, or of rows."""

    layout: Layout
    start: int
    stop: int


def _meet(inputs: GatherInput, piece: _Range) -> None:
    """The visits to a range of clusters in one file."""
    kept_array(
        inputs.kept / f"{_met(piece.start)}.npy",
        lambda: piece.layout.visited(inputs.kept, range(piece.start, piece.stop)),
    )


def _met(cluster: int) -> str:
    return f"met-{cluster:08d}"


@dataclass(frozen=True)
class _Piece:
    layout: Layout
    limits: _Limits
    step: Step
    number: int
    start: int
    stop: int


def _take(inputs: GatherInput, piece: _Piece) -> Path:
    clusters = range(piece.start, piece.stop)
    folder = inputs.kept / f"step-{piece.number:03d}"

    def write(path: Path) -> None:
        limits = piece.limits
        visits = load(inputs.kept, _met(piece.start))
        rows = piece.layout.clustered(inputs.kept, visits, limits.tau, limits.memory_mb, limits.device)
        asks, answers, label = (load(folder, name) for name in ("asks", "answers", "label"))
        found, by, cosine = rows.take(piece.step, clusters, asks, answers, label)
        np.savez(path, rows=found, by=by, cosine=cosine)

    return kept_file(folder / f"{piece.start:08d}.npz", write)


def _done(
    inputs: GatherInput, work: Callable[[GatherInput, A], R], items: Sequence[A], little: bool = False
) -> Iterator[R]:
    """By the workers; here where it is so little that it is done before they are up."""
    return (work(inputs, item) for item in items) if little else inputs.spread(work, items)


def _visitors(kept: Path, layout: Layout, number: int) -> np.ndarray:
    """How many visit each cluster, by one file."""
    keys = load(kept, visits_name(number))
    counts: np.ndarray = np.diff(np.searchsorted(keys, np.arange(layout.clusters + 1) * layout.rows))
    return counts


def _with_visits(inputs: GatherInput, layout: Layout, config: DedupSection, tau: float) -> Layout:
    """Find out which rows visit which clusters."""
    if config.border == "none" or layout.clusters == 1:
        return layout
    shards = inputs.shards("cluster")
    if config.border == "margin":
        margin = config.border_margin * float(np.sqrt(1 - tau * tau))
        marginal = _marginal(inputs, layout, shards, margin)
        return replace(layout, visits=len(list(inputs.spread(_margin_piece, marginal))))
    pieces = [
        _Exact(layout, shards[0], number, start, min(start + _ROWS, layout.rows), tau)
        for number, start in enumerate(range(0, layout.rows, _ROWS))
    ]
    worst = np.zeros(layout.clusters, np.float32)
    for path in inputs.spread(_overhang_piece, pieces):
        np.maximum(worst, np.load(path), out=worst)
    kept_array(inputs.kept / "overhang.npy", lambda: worst)
    return replace(layout, visits=len(list(inputs.spread(_exact_piece, pieces))))


@dataclass(frozen=True)
class _Marginal:
    """Shards, and the number of their first row among those of the run."""

    layout: Layout
    number: int
    shards: list[str]
    first: int
    margin: float


def _marginal(inputs: GatherInput, layout: Layout, shards: list[str], margin: float) -> list[_Marginal]:
    pieces: list[_Marginal] = []
    first, held = 0, _ROWS
    for shard in shards:
        if held >= _ROWS:
            pieces.append(_Marginal(layout, len(pieces), [], first, margin))
            held = 0
        pieces[-1].shards.append(shard)
        rows = inputs.table("cluster", shard, ["uid"]).num_rows
        first += rows
        held += rows
    return pieces


def _margin_piece(inputs: GatherInput, piece: _Marginal) -> None:
    layout = piece.layout

    def keys() -> np.ndarray:
        centroids = np.load(inputs.file("cluster", inputs.shards("cluster")[0], "centroids"), mmap_mode="r")
        place = load(inputs.kept, "place")
        found = [np.empty(0, np.int64)]
        first = piece.first
        for shard in piece.shards:
            table = inputs.table("cluster", shard, [*_OWN, *_NEAR])
            own, near = (table.column(name).to_numpy() for name in _OWN)
            further, beside = (_square(table.column(name), fill) for name, fill in _NEAR.items())
            rows, visited = margin_visits(own, near, further, beside, centroids, piece.margin)
            rows = place[first + rows]
            first += table.num_rows
            live = (rows >= 0) & (visited < layout.clusters)
            found.append(keys_of(rows[live], visited[live], layout.rows))
        return np.sort(np.concatenate(found))

    kept_array(inputs.kept / f"{visits_name(piece.number)}.npy", keys)


def _square(lists: pa.ChunkedArray, fill: float) -> np.ndarray:
    """A column of lists as (rows, longest), shorter ones filled up: a tree of clusters shows some rows fewer."""
    lengths = lists.combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
    flat = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    out = np.full((len(lists), lengths.max(initial=0)), fill, flat.dtype)
    out[np.arange(out.shape[1]) < lengths[:, None]] = flat
    return out


@dataclass(frozen=True)
class _Exact:
    layout: Layout
    first_shard: str
    number: int
    start: int
    stop: int
    tau: float

    def open(self, inputs: GatherInput) -> tuple[Vectors, np.ndarray, np.ndarray]:
        """Vectors of the piece's rows, their clusters, and the centroids in the space in which rows are compared."""
        rows = slice(self.start, self.stop)
        vectors = self.layout.vectors(inputs.kept).take(rows)
        centroids = np.load(inputs.file("cluster", self.first_shard, "centroids"))[: self.layout.clusters]
        if vectors.mean is not None:
            centroids = Vectors.of(centroids, vectors.mean).unit(slice(None))
        return vectors, self.layout.of_rows(inputs.kept)[rows], centroids


def _overhang_piece(inputs: GatherInput, piece: _Exact) -> Path:
    path = inputs.kept / f"overhang-{piece.number:05d}.npy"
    kept_array(path, lambda: overhang(*piece.open(inputs)))
    return path


def _exact_piece(inputs: GatherInput, piece: _Exact) -> None:
    def keys() -> np.ndarray:
        worst = np.load(inputs.kept / "overhang.npy")
        rows, visited = exact_visits(*piece.open(inputs), worst, piece.tau)
        return keys_of(rows + piece.start, visited, piece.layout.rows)

    kept_array(inputs.kept / f"{visits_name(piece.number)}.npy", keys)


def _with_sketches(inputs: GatherInput, layout: Layout, tau: float) -> Layout:
    """Short forms of all rows in one file, where they serve."""
    kept = inputs.kept

    def choose() -> np.ndarray:
        some = np.unique(np.linspace(0, layout.clusters - 1, _MEETINGS).astype(int)).tolist()
        visits = np.concatenate([layout.visited(kept, range(cluster, cluster + 1)) for cluster in some])
        return sketch_directions(layout.vectors(kept), layout.clustered(kept, visits, tau).meetings(some), tau)

    directions = kept_array(kept / "directions.npy", choose)
    if directions.shape[1] == 0:
        return layout
    pieces = [_Range(layout, start, min(start + _ROWS, layout.rows)) for start in range(0, layout.rows, _ROWS)]

    def write(path: Path) -> None:
        out: np.memmap | None = None
        for piece, part in zip(pieces, inputs.spread(_sketch_piece, pieces), strict=True):
            bits = np.load(part, mmap_mode="r")
            if out is None:
                out = np.lib.format.open_memmap(path, "w+", bits.dtype, (layout.rows, bits.shape[1]))
            out[piece.start : piece.stop] = bits
        assert out is not None
        out.flush()

    kept_file(kept / "sketches.npy", write)
    return replace(layout, sketched=True)


def _sketch_piece(inputs: GatherInput, piece: _Range) -> Path:
    path = inputs.kept / f"sketches-{piece.start:010d}.npy"
    directions = np.load(inputs.kept / "directions.npy")
    kept_array(path, lambda: sketches_of(piece.layout.vectors(inputs.kept), slice(piece.start, piece.stop), directions))
    return path


@dataclass(frozen=True)
class _Sampled:
    layout: Layout
    limits: _Limits
    start: int
    stop: int
    sample: str


def _recall(inputs: GatherInput, layout: Layout, limits: _Limits, place: np.ndarray, kept: np.ndarray) -> Recall:
    """Hold the sampled rows, by their places, against all."""
    name = f"recall-{len(place)}"
    folder = inputs.kept / name
    folder.mkdir(exist_ok=True)
    kept_array(folder / "place.npy", lambda: place)
    kept_array(folder / "kept.npy", lambda: kept)
    kept_array(folder / "visits.npy", lambda: _visits_of(inputs.kept, layout, place))
    pieces = [
        _Sampled(layout, limits, start, min(start + _ROWS, layout.rows), name) for start in range(0, layout.rows, _ROWS)
    ]
    found = sum(
        _done(inputs, _sampled_piece, pieces, little=len(place) * layout.rows < _LITTLE),
        np.zeros((len(place), 3), np.int64),
    )
    return Recall.of(found, kept[place])


def _visits_of(kept: Path, layout: Layout, place: np.ndarray) -> np.ndarray:
    """Visits that the rows make, and those to their clusters, as cluster * n + row."""
    sampled = np.zeros(layout.rows, bool)
    sampled[place] = True
    clusters = np.zeros(layout.clusters, bool)
    clusters[layout.of_rows(kept)[place]] = True
    found = [np.empty(0, np.int64)]
    for number in range(layout.visits):
        keys = load(kept, visits_name(number))
        for start in range(0, len(keys), _ROWS):
            cluster, row = np.divmod(keys[start : start + _ROWS], layout.rows)
            found.append(keys[start : start + _ROWS][sampled[row] | clusters[cluster]])
    return np.sort(np.concatenate(found))


def _sampled_piece(inputs: GatherInput, piece: _Sampled) -> np.ndarray:
    folder = inputs.kept / piece.sample
    vectors = piece.layout.vectors(inputs.kept)
    place, kept, visits = (load(folder, name) for name in ("place", "kept", "visits"))
    found = kept_array(
        folder / f"{piece.start:010d}.npy",
        lambda: against_everything(
            vectors.take(place),
            place,
            vectors.take(slice(piece.start, piece.stop)),
            piece.start,
            piece.layout.of_rows(inputs.kept),
            kept,
            visits,
            piece.limits.tau,
            piece.limits.memory_mb,
            piece.limits.device,
        ),
    )
    return np.asarray(found)
