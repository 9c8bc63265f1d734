"""A look at a run's clusters that stays small: some shards where there are many, and whole clusters drawn by seed.

Copies are looked for inside clusters, so whole clusters show what a threshold would do to all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store import Store
from stages.base import align
from stages.curate.vectors import uid_array, vector_array

SEED = 1234

_PLACE = ["sha256", "phash", "width", "height", "image_offset", "image_bytes"]
_CLUSTERED = ["uid", "cluster", "centroid_cosine"]


@dataclass(frozen=True)
class Extent:
    """The shards that are looked at.

    Attributes:
        shards: their names, in order.
        rows: clustered rows in them.
        of_shards, of_rows: what the run has.
    """

    shards: list[str]
    rows: int
    of_shards: int
    of_rows: int

    @property
    def whole(self) -> bool:
        return self.rows == self.of_rows


@dataclass(frozen=True)
class Clusters:
    """All clusters, as far as the rows of an extent show them.

    Attributes:
        size: rows, int64 (k,); clusters that are empty there have 0.
        mean_cosine: of their rows to the centroid, float64 (k,); NaN where empty.
    """

    size: np.ndarray
    mean_cosine: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """Numbers of the clusters that hold rows, largest first."""
        order = np.argsort(-self.size, kind="stable")
        return order[self.size[order] > 0]


@dataclass(frozen=True)
class Sample:
    """Whole clusters of an extent.

    Attributes:
        rows: uid, cluster, centroid_cosine, sha256, phash, width, height, image_shard, image_offset, image_bytes;
            in order of cluster, then uid, however the rows lie in shards.
        vectors: as stored, float16 (n, width).
        clusters: how many were drawn.
        too_large: rows of the extent in clusters that no sample of this size can hold whole.
    """

    rows: pa.Table
    vectors: np.ndarray
    clusters: int
    too_large: int

    def __len__(self) -> int:
        return int(self.rows.num_rows)


def extent_of(store: Store, rows: int | None = None) -> Extent:
    """Every shard; of a run with more than `rows` clustered rows, shards drawn by seed that hold at most so many."""
    shards = store.shards("cluster")
    record = store.record_of("cluster", shards[0]) if shards else None
    counts = {shard: (record.rows_of(shard).rows or 0) for shard in shards} if record else {}
    total = sum(counts.values())
    chosen = shards
    if rows is not None and total > rows:
        drawn = [shards[i] for i in np.random.default_rng(SEED).permutation(len(shards))]
        held = np.cumsum([counts[shard] for shard in drawn])
        chosen = sorted(drawn[: int(np.searchsorted(held, rows, side="right")) or 1])
    return Extent(chosen, sum(counts[shard] for shard in chosen), len(shards), total)


def clusters_of(store: Store, extent: Extent) -> Clusters:
    """One pass over the extent's assignments; memory: one shard and 16 bytes a cluster."""
    size = np.zeros(0, np.int64)
    total = np.zeros(0)
    for shard in extent.shards:
        table = store.table("cluster", shard, _CLUSTERED[1:])
        cluster = table.column("cluster").to_numpy()
        k = max(len(size), int(cluster.max(initial=-1)) + 1)
        size = np.pad(size, (0, k - len(size))) + np.bincount(cluster, minlength=k)
        cosines = np.bincount(cluster, table.column("centroid_cosine").to_numpy(), minlength=k)
        total = np.pad(total, (0, k - len(total))) + cosines
    with np.errstate(invalid="ignore"):
        return Clusters(size, total / size)


def draw(
    store: Store, extent: Extent, clusters: Clusters, rows: int, more: Mapping[str, Sequence[str]] | None = None
) -> Sample:
    """Whole clusters by seed until there are `rows` rows, which the last one may exceed; larger ones are left out.

    Reads the vectors of the extent once. Memory: one shard, and at most twice `rows` rows.

    Args:
        more: columns that the rows get as well, by stage.
    """
    fitting = np.flatnonzero((clusters.size > 0) & (clusters.size <= rows))
    drawn = np.random.default_rng(SEED).permutation(fitting)
    held = np.cumsum(clusters.size[drawn])
    chosen = drawn[: int(np.searchsorted(held, rows)) + 1]
    parts = [_members(store, shard, chosen, {"download": _PLACE, **(more or {})}) for shard in extent.shards]
    table = pa.concat_tables([part for part, _ in parts])
    order = np.lexsort((uid_array(table), table.column("cluster").to_numpy()))
    vectors = np.concatenate([v for _, v in parts if len(v)]) if table.num_rows else np.zeros((0, 1), np.float16)
    too_large = int(clusters.size[clusters.size > rows].sum())
    return Sample(table.take(order), vectors[order], len(chosen), too_large)


def _members(
    store: Store, shard: str, clusters: np.ndarray, columns: Mapping[str, Sequence[str]]
) -> tuple[pa.Table, np.ndarray]:
    rows = store.table("cluster", shard, _CLUSTERED)
    rows = rows.filter(pc.is_in(rows.column("cluster"), pa.array(clusters, pa.int32())))
    uids = rows.column("uid").to_pylist()
    for stage, names in columns.items():
        table = align(store.table(stage, shard, ["uid", *names]), uids)
        for name in names:
            rows = rows.append_column(name, table.column(name))
    rows = rows.append_column("image_shard", pa.array([shard] * len(uids), pa.string()))
    if not uids:
        return rows, np.zeros((0, 0), np.float16)
    embedding = align(store.table("embed", shard, ["uid", "embedding"]), uids).column("embedding")
    return rows, vector_array(embedding)
