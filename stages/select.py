"""`select`: the first rows of every cluster become the dataset's rows, in new shards of equal size."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from schemas.ledger import Drop, Reason
from schemas.section import StageSection
from schemas.tables import SELECT, TAKING_ORDER
from stages.base import GatherInput, GatherStage, ShardOutput, align
from stages.curate.ranking import ranked, shuffled
from stages.curate.sampling import Taking, taking
from stages.curate.vectors import uid_array
from stages.hosts import hosts
from stages.reshard import Reshard

_FROM_INGEST = ["uid", "alt_text", "punsafe", "pwatermark", "aesthetic", "similarity", "language"]
_ROW_GROUP = 1 << 20


class SelectSection(StageSection):
    """How many rows are taken, and which. Rows are ranked in their clusters, capped, then balanced to the limit."""

    per_cluster: int | None = Field(
        20, ge=1, description="most rows taken from one cluster (DenseFusion section 3.1); null sets no cap"
    )
    per_domain: int | None = Field(
        None,
        ge=1,
        description="most rows taken from one domain, those of the best rank; what it cuts makes room in the clusters. "
        "A domain is the URL's host name: img1.example.org and img2.example.org are two; rows without a host are not "
        "capped; null sets no cap",
    )
    rank_by: Literal["centroid_cosine", "resolution", "aesthetic", "similarity", "random"] = Field(
        "centroid_cosine",
        description="key that ranks the rows of a cluster; the paper says top 20 and not by what. Resolution is the "
        "true number of pixels; aesthetic and similarity (of image and text) are the source's, and rows without one "
        "come last; ties go by uid",
    )
    direction: Literal["descending", "ascending"] = Field(
        "descending", description="greatest key first (closest to the centroid), or least; not used by random"
    )
    seed: int = Field(
        1234,
        ge=0,
        lt=2**31,
        description="of rank_by: random, and of who goes first where clusters or domains have equal claims",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="most rows in all; reached exactly where the caps leave as many, and each limit's choice holds "
        "those of all smaller ones (choices under other caps need not hold each other); null takes all",
    )
    balance: Literal["clusters", "tree"] = Field(
        "clusters",
        description="how the limit is spread. clusters: evenly over the clusters, every cluster's first row before any "
        "second. tree: evenly over the topmost groups of hierarchical clusters, then evenly within each, down to the "
        "clusters (Vo et al. 2024); the same as clusters where there is one level",
    )
    shard_rows: int = Field(1000, ge=1, le=100_000, description="rows in a shard; the last one may hold fewer")


class SelectStage(GatherStage):
    """Ranks each cluster's rows, takes the first ones, and lays them out in the order of their images.

    The order of layout is that of the download shards and of the rows in them, so that whoever reads the images reads
    forward. Which rows are taken depends on the rows alone, not on how they are spread over shards. Memory: about 200
    bytes for every row that dedup left, and one shard.

    The first shard carries a file of kind `order` (parquet, schemas.tables.TAKING_ORDER): all rows in the order of
    taking, which the limit does not change, then those that a cap cut. Another limit needs no new clusters: only this
    stage, and what reads it, is done again.
    """

    name = "select"
    version = 2
    schema = SELECT
    rows_from = "dedup"
    also_reads = ("ingest", "download", "cluster")
    config: SelectSection

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        config = self.config
        rows = self._read(inputs)
        if config.rank_by == "random":
            order = shuffled(rows.uid, config.seed)
        else:
            order = ranked(rows.key, rows.uid, descending=config.direction == "descending")
        # a stream of its own: a row's random rank must not say when its cluster's turn is
        ties = shuffled(rows.uid, config.seed + 2**31)
        parents = self._parents(inputs)
        take = taking(order, rows.cluster, ties, parents, config.per_cluster, rows.domain, config.per_domain)
        for number, (shard, output) in enumerate(self._shards(inputs, rows, take)):
            if number == 0:
                output.files["order"] = _save_order(inputs.scratch / "order.parquet", rows, take)
                output.metrics = self._cuts(take)
            yield shard, output

    def _shards(self, inputs: GatherInput, rows: "_Rows", take: Taking) -> Iterator[tuple[str, ShardOutput]]:
        taken = take.place >= 0
        if self.config.limit is not None:
            taken &= take.place < self.config.limit
        out = Reshard(self.schema, self.config.shard_rows)
        left = take.left
        first = 0
        for shard in inputs.shards("dedup"):
            table = inputs.table("dedup", shard)
            numbers = np.arange(first, first + table.num_rows)
            first += table.num_rows
            table = table.append_column(SELECT.field("rank"), pa.array(take.rank[numbers]))
            here = taken[numbers]
            image = inputs.table("download", shard)
            gone = table.column("uid").filter(pa.array(~here))
            urls = align(image.select(["uid", "url"]), gone).column("url")
            drops = [
                Drop(uid, url, Reason.NOT_SELECTED, self._why(rows, take, left, row))
                for row, uid, url in zip(numbers[~here].tolist(), gone.to_pylist(), urls.to_pylist(), strict=True)
            ]
            stated = inputs.table("ingest", shard, _FROM_INGEST)
            yield from out.add(_rows(shard, table.filter(pa.array(here)), image, stated), drops)
        yield out.finish()

    def _why(self, rows: "_Rows", take: Taking, left: int, row: int) -> str:
        """Which cap cut a row, or that the limit did."""
        if take.place[row] >= 0:
            text = f"limit {self.config.limit}: place {take.place[row]} of {left} in the order of taking"
        elif take.domains is not None and take.domains.cut[row]:
            assert rows.domain is not None
            size = take.domains.size[rows.domain[row]]
            text = f"per_domain {self.config.per_domain}: place {take.domains.place[row]} of {size} in its domain"
        else:
            cluster = rows.cluster[row]
            place, size = take.clusters.place[row], take.clusters.size[cluster]
            text = f"per_cluster {self.config.per_cluster}: place {place} of {size} in cluster {cluster}"
        return f"{text}, counted from 0"

    def _cuts(self, take: Taking) -> dict[str, float]:
        limit = self.config.limit
        return {
            "cut_by_per_domain": float(take.domains.cut.sum()) if take.domains else 0.0,
            "cut_by_per_cluster": float(take.clusters.cut.sum()),
            "cut_by_limit": float(max(take.left - limit, 0)) if limit is not None else 0.0,
        }

    def _read(self, inputs: GatherInput) -> "_Rows":
        uids, clusters, keys = [np.empty(0, "S32")], [np.empty(0, np.int32)], [np.empty(0)]
        domains: list[pa.Array] = []
        for shard in inputs.shards("dedup"):
            table = inputs.table("dedup", shard)
            uid = table.column("uid")
            uids.append(uid_array(table))
            clusters.append(table.column("cluster").to_numpy())
            match self.config.rank_by:
                case "centroid_cosine":
                    keys.append(table.column("centroid_cosine").to_numpy())
                case "resolution":
                    image = align(inputs.table("download", shard, ["uid", "width", "height"]), uid)
                    sides = [image.column(side).to_numpy().astype(np.float64) for side in ("width", "height")]
                    keys.append(sides[0] * sides[1])
                case "aesthetic" | "similarity" as score:
                    stated = align(inputs.table("ingest", shard, ["uid", score]), uid)
                    keys.append(stated.column(score).cast(pa.float64()).to_numpy())
            if self.config.per_domain is not None:
                urls = align(inputs.table("download", shard, ["uid", "url"]), uid).column("url")
                domains += hosts(urls).dictionary_encode().chunks
        domain = _numbers(domains) if self.config.per_domain is not None else None
        return _Rows(np.concatenate(uids), np.concatenate(clusters), np.concatenate(keys), domain)

    def _parents(self, inputs: GatherInput) -> np.ndarray:
        """The groups above the clusters, int32 of (clusters, levels above), from the top."""
        if self.config.balance == "tree":
            for shard in inputs.shards("cluster")[:1]:
                with contextlib.suppress(KeyError):
                    return np.asarray(np.load(inputs.file("cluster", shard, "parents")))
        return np.empty((0, 0), np.int32)


@dataclass
class _Rows:
    """What decides, of all rows.

    Attributes:
        uid: bytes of (n,).
        cluster: int32 of (n,).
        key: what ranks, of (n,); of (0,) where the rank is random.
        domain: number of the row's domain, -1 where it has none, int32 of (n,); None where there is no cap.
    """

    uid: np.ndarray
    cluster: np.ndarray
    key: np.ndarray
    domain: np.ndarray | None


def _numbers(values: list[pa.Array]) -> np.ndarray:
    """int32 of (n,), equal for equal values; -1 for nulls."""
    kind = pa.dictionary(pa.int32(), pa.string())
    codes = pa.chunked_array(values, kind).unify_dictionaries()
    return np.concatenate([np.empty(0, np.int32), *(chunk.indices.fill_null(-1).to_numpy() for chunk in codes.chunks)])


def _save_order(path: Path, rows: _Rows, take: Taking) -> Path:
    """Rows by place, then the rows that a cap cut, by cluster and rank."""
    cut = np.flatnonzero(take.place < 0)
    taken = np.flatnonzero(take.place >= 0)
    order = np.concatenate([taken[np.argsort(take.place[taken])], cut[np.lexsort((take.rank[cut], rows.cluster[cut]))]])
    with pq.ParquetWriter(path, TAKING_ORDER) as writer:
        for start in range(0, max(len(order), 1), _ROW_GROUP):
            part = order[start : start + _ROW_GROUP]
            place = pa.array(take.place[part], mask=take.place[part] < 0)
            uid = pa.array(rows.uid[part].tolist(), pa.binary()).cast(pa.string())
            writer.write_table(
                pa.table(
                    [uid, pa.array(rows.cluster[part]), pa.array(take.rank[part]), place],
                    schema=TAKING_ORDER,
                )
            )
    return path


def _rows(shard: str, chosen: pa.Table, image: pa.Table, stated: pa.Table) -> pa.Table:
    """The select rows of one download shard, in the order of its rows."""
    image = image.filter(pc.is_in(image.column("uid"), value_set=chosen.column("uid")))
    uids = image.column("uid")
    columns: dict[str, pa.ChunkedArray | pa.Array] = {"image_shard": pa.array([shard] * len(uids), pa.string())}
    for part in (align(stated, uids), align(chosen, uids), image):
        columns |= dict(zip(part.column_names, part.columns, strict=True))
    return pa.table([columns[name] for name in SELECT.names], schema=SELECT)
