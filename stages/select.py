"""`select`: the first rows of every cluster become the dataset's rows, in new shards of equal size."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from schemas.errors import RequestError
from schemas.ledger import Drop, Reason
from schemas.section import StageSection
from schemas.tables import SCORE_COLUMNS, SELECT, TAKING_ORDER
from stages.base import GatherInput, GatherStage, ShardOutput, align
from stages.curate.limits import Limit, stopped
from stages.curate.ranking import ranked, shuffled
from stages.curate.sampling import Taking, taking
from stages.curate.vectors import uid_array
from stages.hosts import hosts
from stages.reshard import Reshard

_FROM_INGEST = ["uid", "alt_text", "punsafe", "pwatermark", "aesthetic", "similarity", "language"]
_ROW_GROUP = 1 << 20
_RankBy = Literal["centroid_cosine", "resolution", "aesthetic", "measured_aesthetic", "similarity", "random"]


class SelectSection(StageSection):
    """How many rows are taken, and which. Limits on scores come first, so that others take a row's place; then rows are
    ranked in their clusters, capped, and balanced to the limit."""

    max_nsfw: float | None = Field(
        None,
        ge=0,
        le=1,
        description="greatest score by perceive.nsfw, which must be on; a row that the expert failed on stops too, "
        "here and in the next two; null does not filter",
    )
    max_watermark: float | None = Field(
        None, ge=0, le=1, description="greatest score by perceive.watermark, which must be on; null does not filter"
    )
    min_aesthetic: float | None = Field(
        None, ge=0, le=10, description="least score by perceive.aesthetic, which must be on; null does not filter"
    )
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
    rank_by: _RankBy = Field(
        "centroid_cosine",
        description="key that ranks the rows of a cluster; the paper says top 20 and not by what. Resolution is the "
        "true number of pixels; aesthetic and similarity (of image and text) are the source's, measured_aesthetic is "
        "that of perceive.aesthetic, which must be on, and rows without one come last; ties go by uid",
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
    """Stops rows by their scores, ranks each cluster's others, takes the first, and lays them out in the order of their
    images.

    The order of layout is that of the download shards and of the rows in them, so that whoever reads the images reads
    forward. Which rows are taken depends on the rows alone, not on how they are spread over shards. Memory: about 200
    bytes for every row that dedup left, and one shard.

    A row stops at the first limit that it misses, in the order nsfw, watermark, aesthetic, with that limit's reason;
    with `expert_failed` (`poison` where it killed the expert's processes) if the expert has no score for it. Where no
    limit asks for a score, such a row goes on without it. Another limit runs no expert again.

    The first shard carries a file of kind `order` (parquet, schemas.tables.TAKING_ORDER): all rows in the order of
    taking, which the limit does not change, then those that a cap cut. Another limit needs no new clusters: only this
    stage, and what reads it, is done again.

    Args:
        experts: names of the experts that are on and looked at the rows of `dedup`.
    """

    name = "select"
    version = 3
    schema = SELECT
    rows_from = "dedup"
    config: SelectSection

    def __init__(self, config: SelectSection, experts: tuple[str, ...] = ()) -> None:
        super().__init__(config)
        self._experts = tuple(name for name in SCORE_COLUMNS if name in experts)
        self.also_reads = ("ingest", "download", "cluster", *(f"perceive.{name}" for name in self._experts))
        limits = [
            ("nsfw", "max_nsfw", config.max_nsfw, False, Reason.NSFW),
            ("watermark", "max_watermark", config.max_watermark, False, Reason.WATERMARKED),
            ("aesthetic", "min_aesthetic", config.min_aesthetic, True, Reason.LOW_AESTHETIC),
        ]
        self._limits = [
            Limit(expert, setting, bound, least, reason)
            for expert, setting, bound, least, reason in limits
            if bound is not None
        ]

    def check(self) -> None:
        needs = {limit.setting: limit.expert for limit in self._limits}
        if self.config.rank_by == "measured_aesthetic":
            needs["rank_by"] = "aesthetic"
        for setting, expert in needs.items():
            if expert not in self._experts:
                value = getattr(self.config, setting)
                raise RequestError(
                    f"select.{setting} is {value}, and goes by what perceive.{expert} measures, which is off. "
                    f"Turn it on, `perceive: {{{expert}: {{}}}}`, or leave select.{setting} out."
                )

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        config = self.config
        rows = self._read(inputs)
        if config.rank_by == "random":
            order = shuffled(rows.uid, config.seed)
        else:
            order = ranked(rows.key, rows.uid, descending=config.direction == "descending")
        # a stream of its own: a row's random rank must not say when its cluster's turn is
        ties = shuffled(rows.uid, config.seed + 2**31)
        order, ties = order[rows.stopped[order] < 0], ties[rows.stopped[ties] < 0]
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
            scores = self._scores(inputs, shard, table.column("uid"))
            said = {limit.expert: scores[limit.expert].filter(pa.array(~here)).to_pylist() for limit in self._limits}
            drops = [
                Drop(uid, url, *self._why(rows, take, left, row, {name: of[i] for name, of in said.items()}))
                for i, (row, uid, url) in enumerate(
                    zip(numbers[~here].tolist(), gone.to_pylist(), urls.to_pylist(), strict=True)
                )
            ]
            chosen = _with_scores(table, scores).filter(pa.array(here))
            stated = inputs.table("ingest", shard, _FROM_INGEST)
            yield from out.add(_rows(shard, chosen, image, stated), drops)
        yield out.finish()

    def _scores(self, inputs: GatherInput, shard: str, uids: pa.ChunkedArray) -> dict[str, pa.Table]:
        """What the experts say of rows, by expert, in the order of the rows."""
        return {name: align(inputs.table(f"perceive.{name}", shard), uids) for name in self._experts}

    def _why(
        self, rows: "_Rows", take: Taking, left: int, row: int, said: dict[str, dict[str, Any]]
    ) -> tuple[Reason, str]:
        """Why a row stops, of which the experts that limits go by have `said` something."""
        if rows.stopped[row] < 0:
            return Reason.NOT_SELECTED, self._cut(rows, take, left, row)
        limit = self._limits[rows.stopped[row]]
        return limit.why(said[limit.expert]["score"], said[limit.expert]["error"])

    def _cut(self, rows: "_Rows", take: Taking, left: int, row: int) -> str:
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
        stops = [np.empty(0, np.int8)]
        for shard in inputs.shards("dedup"):
            table = inputs.table("dedup", shard)
            uid = table.column("uid")
            uids.append(uid_array(table))
            clusters.append(table.column("cluster").to_numpy())
            scores = self._scores(inputs, shard, uid)
            stops.append(stopped(self._limits, scores, len(table)))
            match self.config.rank_by:
                case "centroid_cosine":
                    keys.append(table.column("centroid_cosine").to_numpy())
                case "resolution":
                    image = align(inputs.table("download", shard, ["uid", "width", "height"]), uid)
                    sides = [image.column(side).to_numpy().astype(np.float64) for side in ("width", "height")]
                    keys.append(sides[0] * sides[1])
                case "measured_aesthetic":
                    keys.append(scores["aesthetic"].column("score").cast(pa.float64()).to_numpy())
                case "aesthetic" | "similarity" as score:
                    stated = align(inputs.table("ingest", shard, ["uid", score]), uid)
                    keys.append(stated.column(score).cast(pa.float64()).to_numpy())
            if self.config.per_domain is not None:
                urls = align(inputs.table("download", shard, ["uid", "url"]), uid).column("url")
                domains += hosts(urls).dictionary_encode().chunks
        domain = _numbers(domains) if self.config.per_domain is not None else None
        uid, cluster, key, stop = (np.concatenate(parts) for parts in (uids, clusters, keys, stops))
        return _Rows(uid, cluster, key, stop, domain)

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
        stopped: number of the limit on a score that stops the row, -1 where none does, int8 of (n,).
        domain: number of the row's domain, -1 where it has none, int32 of (n,); None where there is no cap.
    """

    uid: np.ndarray
    cluster: np.ndarray
    key: np.ndarray
    stopped: np.ndarray
    domain: np.ndarray | None


def _numbers(values: list[pa.Array]) -> np.ndarray:
    """int32 of (n,), equal for equal values; -1 for nulls."""
    kind = pa.dictionary(pa.int32(), pa.string())
    codes = pa.chunked_array(values, kind).unify_dictionaries()
    return np.concatenate([np.empty(0, np.int32), *(chunk.indices.fill_null(-1).to_numpy() for chunk in codes.chunks)])


def _save_order(path: Path, rows: _Rows, take: Taking) -> Path:
    """Rows by place, then the rows that a cap cut, by cluster and rank; none that a limit on a score stopped."""
    cut = np.flatnonzero((take.place < 0) & (rows.stopped < 0))
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


def _with_scores(table: pa.Table, scores: dict[str, pa.Table]) -> pa.Table:
    """The table with a column of each expert's scores, null for experts that are off."""
    for name, column in SCORE_COLUMNS.items():
        score = scores[name].column("score") if name in scores else pa.nulls(len(table), pa.float32())
        table = table.append_column(SELECT.field(column), score)
    return table


def _rows(shard: str, chosen: pa.Table, image: pa.Table, stated: pa.Table) -> pa.Table:
    """The select rows of one download shard, in the order of its rows."""
    image = image.filter(pc.is_in(image.column("uid"), value_set=chosen.column("uid")))
    uids = image.column("uid")
    columns: dict[str, pa.ChunkedArray | pa.Array] = {"image_shard": pa.array([shard] * len(uids), pa.string())}
    for part in (align(stated, uids), align(chosen, uids), image):
        columns |= dict(zip(part.column_names, part.columns, strict=True))
    return pa.table([columns[name] for name in SELECT.names], schema=SELECT)
