"""Rows as the semantic search reads them: files in `GatherInput.kept`, which any worker opens."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base import GatherInput, align
from stages.curate.semantic.border import Visits
from stages.curate.semantic.clustered import Clustered
from stages.curate.semantic.sketches import Sketches
from stages.curate.vectors import Vectors, vector_array
from stages.kept import kept_array, kept_file

_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the files; small, so that it travels with every piece of work.

    The rows stand by cluster and in each by keep order, those that copies of bytes or hashes took out are left out.

    Attributes:
        rows: n.
        width: d.
        clusters: k.
        centred: the mean of all rows is subtracted.
        visits: how many files of visits there are.
        sketched: there are sketches of all rows.
    """

    rows: int
    width: int
    clusters: int
    centred: bool
    visits: int = 0
    sketched: bool = False

    def vectors(self, kept: Path) -> Vectors:
        """All rows, memory-mapped."""
        return Vectors(_stored(kept, self.width), load(kept, "scale"), load(kept, "mean") if self.centred else None)

    def clustered(
        self, kept: Path, visits: np.ndarray, tau: float, memory_mb: float = 100, device: str = "cpu"
    ) -> Clustered:
        """All rows, with some of the `visited` clusters."""
        return Clustered(
            self.vectors(kept),
            load(kept, "rank"),
            load(kept, "starts"),
            Visits.of_keys(visits, self.rows, self.clusters),
            tau,
            Sketches(load(kept, "sketches"), load(kept, "directions"), tau) if self.sketched else None,
            memory_mb,
            device,
        )

    def visited(self, kept: Path, clusters: range) -> np.ndarray:
        """Visits to some clusters as cluster * n + row, ascending: int64 of (visits,)."""
        found = [np.empty(0, np.int64)]
        for number in range(self.visits):
            keys = load(kept, visits_name(number))
            found.append(keys[slice(*np.searchsorted(keys, [clusters.start * self.rows, clusters.stop * self.rows]))])
        return np.sort(np.concatenate(found))

    def of_rows(self, kept: Path) -> np.ndarray:
        """The cluster of each row, int32 of (n,)."""
        return np.repeat(np.arange(self.clusters, dtype=np.int32), np.diff(load(kept, "starts")))


def visits_name(number: int) -> str:
    return f"visits-{number:05d}"


def keys_of(rows: np.ndarray, clusters: np.ndarray, n: int) -> np.ndarray:
    """Visits as they are stored: cluster * n + row, ascending."""
    return np.sort(clusters.astype(np.int64) * n + rows)


def lay_out(inputs: GatherInput, live: np.ndarray, cluster: np.ndarray, total: int, centred: bool) -> Layout:
    """Write what the search reads, as far as an earlier attempt has not.

    Besides the vectors there are `rank` (place of each row among all in keep order), `starts` (of each cluster),
    `scale`, `mean` where it is subtracted, and `place` (of each of the run's rows, -1 where it is left out).

    Args:
        live: numbers of the rows that are searched, in keep order.
        cluster: of all rows of the run.
        total: how many those are.
    """
    kept = inputs.kept
    order = np.argsort(cluster[live], kind="stable")
    k = int(cluster[live].max()) + 1
    place = np.full(total, -1, np.int64)
    place[live[order]] = np.arange(len(live))
    kept_array(kept / "rank.npy", lambda: order)
    kept_array(kept / "starts.npy", lambda: np.searchsorted(cluster[live[order]], np.arange(k + 1)))
    kept_array(kept / "place.npy", lambda: place)
    kept_file(kept / "vectors.f16", lambda path: _write_vectors(path, inputs, place, len(live)))
    width = (kept / "vectors.f16").stat().st_size // (2 * len(live))
    layout = Layout(len(live), width, k, centred)
    stored = _stored(kept, width)
    mean = kept_array(kept / "mean.npy", lambda: _mean(Vectors.of(stored))) if centred else None
    kept_array(kept / "scale.npy", lambda: Vectors.of(stored, mean).scale)
    return layout


def _write_vectors(path: Path, inputs: GatherInput, place: np.ndarray, rows: int) -> None:
    first = 0
    out: np.memmap | None = None
    for shard in inputs.shards("cluster"):
        uids = inputs.table("cluster", shard, ["uid"]).column("uid")
        to = place[first : first + len(uids)]
        first += len(uids)
        if not (to >= 0).any():
            continue
        embedding = align(inputs.table("embed", shard, ["uid", "embedding"]), uids).column("embedding")
        vectors = vector_array(embedding)
        if out is None:
            out = np.memmap(path, np.float16, "w+", shape=(rows, vectors.shape[1]))
        out[to[to >= 0]] = vectors[to >= 0]
    assert out is not None
    out.flush()


def _mean(vectors: Vectors) -> np.ndarray:
    """Of the unit rows that have a direction: float32 of (d,)."""
    total = np.zeros(vectors.stored.shape[1])
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        total += vectors.unit(slice(start, start + _ROWS_AT_ONCE)).sum(0, dtype=np.float64)
    directed = max(1, int(np.count_nonzero(vectors.scale)))
    return (total / directed).astype(np.float32)


def load(kept: Path, name: str) -> np.ndarray:
    """A kept array, memory-mapped."""
    # a plain array over the mapping: numpy's own class for it is slow to slice
    return np.asarray(np.load(kept / f"{name}.npy", mmap_mode="r"))


def _stored(kept: Path, width: int) -> np.ndarray:
    return np.asarray(np.memmap(kept / "vectors.f16", np.float16, "r")).reshape(-1, width)
