"""`select`: the first rows of every cluster become the dataset's rows, in new shards of equal size."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from schemas.ledger import Drop, Reason
from schemas.section import StageSection
from schemas.tables import SELECT
from stages.base import GatherInput, GatherStage, ShardOutput, align, by_uid
from stages.curate.ranking import places_within, ranked, shuffled
from stages.curate.vectors import uid_array
from stages.reshard import Reshard

_FROM_INGEST = ["uid", "alt_text", "punsafe", "pwatermark", "aesthetic", "similarity", "language"]


class SelectSection(StageSection):
    """How many rows of a cluster are taken, and which."""

    per_cluster: int = Field(20, ge=1, description="most rows taken from one cluster (DenseFusion section 3.1)")
    rank_by: Literal["centroid_cosine", "resolution", "aesthetic", "random"] = Field(
        "centroid_cosine",
        description="key that ranks the rows of a cluster; the paper says top 20 and not by what. Resolution is the "
        "true number of pixels; rows without a stated aesthetic score come last; ties go by uid",
    )
    direction: Literal["descending", "ascending"] = Field(
        "descending", description="greatest key first (closest to the centroid), or least; not used by random"
    )
    seed: int = Field(1234, ge=0, lt=2**31, description="of rank_by: random")
    limit: int | None = Field(
        None,
        ge=1,
        description="most rows in all, reached by taking every cluster's first row before any cluster's second; null "
        "takes all",
    )
    shard_rows: int = Field(1000, ge=1, le=100_000, description="rows in a shard; the last one may hold fewer")


class SelectStage(GatherStage):
    """Ranks each cluster's rows, takes the first ones, and lays them out in the order of their images.

    The order is that of the download shards and of the rows in them, so that whoever reads the images reads forward.
    Which rows are taken depends on the rows alone, not on how they are spread over shards. Memory: about 150 bytes for
    every row that dedup left, and one shard.
    """

    name = "select"
    version = 1
    schema = SELECT
    rows_from = "dedup"
    also_reads = ("ingest", "download")
    config: SelectSection

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        shards = inputs.shards("dedup")
        uids, cluster, key = self._read(inputs, shards)
        if self.config.rank_by == "random":
            order = shuffled(uids, self.config.seed)
        else:
            order = ranked(key, uids, descending=self.config.direction == "descending")
        rank = places_within(order, cluster)
        taken = self._taken(order, rank)
        size = np.bincount(cluster)
        out = Reshard(self.schema, self.config.shard_rows)
        first = 0
        for shard in shards:
            table = inputs.table("dedup", shard)
            numbers = slice(first, first + table.num_rows)
            first += table.num_rows
            table = table.append_column(SELECT.field("rank"), pa.array(rank[numbers]))
            chosen, rest = table.filter(pa.array(taken[numbers])), table.filter(pa.array(~taken[numbers]))
            image = inputs.table("download", shard)
            drops = [
                Drop(
                    row["uid"],
                    url,
                    Reason.NOT_SELECTED,
                    f"place {row['rank']} of {size[row['cluster']]} in cluster {row['cluster']}, counted from 0",
                )
                for row, url in zip(rest.to_pylist(), _column(image, rest, "url").to_pylist(), strict=True)
            ]
            yield from out.add(_rows(shard, chosen, image, inputs.table("ingest", shard, _FROM_INGEST)), drops)
        yield out.finish()

    def _read(self, inputs: GatherInput, shards: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """uid (bytes), cluster and ranking key of all rows."""
        uids, clusters, keys = [np.empty(0, "S32")], [np.empty(0, np.int32)], [np.empty(0)]
        for shard in shards:
            table = inputs.table("dedup", shard)
            uids.append(uid_array(table))
            clusters.append(table.column("cluster").to_numpy())
            match self.config.rank_by:
                case "centroid_cosine":
                    keys.append(table.column("centroid_cosine").to_numpy())
                case "resolution":
                    image = inputs.table("download", shard, ["uid", "width", "height"])
                    sides = [_column(image, table, side).to_numpy().astype(np.float64) for side in ("width", "height")]
                    keys.append(sides[0] * sides[1])
                case "aesthetic":
                    stated = inputs.table("ingest", shard, ["uid", "aesthetic"])
                    keys.append(_column(stated, table, "aesthetic").cast(pa.float64()).to_numpy())
        return np.concatenate(uids), np.concatenate(clusters), np.concatenate(keys)

    def _taken(self, order: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """Which rows are taken, bool of (n,)."""
        taken = rank < self.config.per_cluster
        if self.config.limit is not None:
            by_rank = order[np.argsort(rank[order], kind="stable")]
            taken[by_rank[self.config.limit :]] = False
        return taken


def _column(table: pa.Table, rows: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of `table` for the uids of `rows`, in their order."""
    return align(table.select(["uid", name]), rows.column("uid").to_pylist()).column(name)


def _rows(shard: str, chosen: pa.Table, image: pa.Table, stated: pa.Table) -> pa.Table:
    """The select rows of one download shard, in the order of its rows."""
    wanted = by_uid(chosen)
    uids = [uid for uid in image.column("uid").to_pylist() if uid in wanted]
    columns: dict[str, pa.ChunkedArray | pa.Array] = {"image_shard": pa.array([shard] * len(uids), pa.string())}
    for table in (stated, chosen, image):
        part = align(table, uids)
        columns |= dict(zip(part.column_names, part.columns, strict=True))
    return pa.table([columns[name] for name in SELECT.names], schema=SELECT)
