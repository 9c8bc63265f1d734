"""The `dedup` stage."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.tables import DEDUP
from stages.base import GatherInput, GatherStage, ShardOutput, align
from stages.curate.exact import exact_duplicates
from stages.curate.perceptual import perceptual_duplicates
from stages.curate.vectors import uid_array
from stages.dedup.order import keep_order
from stages.dedup.output import Verdict, duplicates, ledger_rows
from stages.dedup.search import semantic_search
from stages.dedup.section import DedupSection


class DedupStage(GatherStage):
    """Exact copies first, then perceptual ones among the rest, then semantic ones among what is left.

    Which rows stay depends on the rows alone, not on how they are spread over shards nor on who searched. Memory of the
    gather: about 150 bytes for every row; of a worker: `memory_mb` beyond what is mapped from disk, where the vectors
    of all rows lie. Each shard carries a file of kind `duplicates` (parquet, schemas.tables.DUPLICATES); what a sample
    says about the recall of the semantic search is among the metrics of the first (stages.curate.recall).
    """

    name = "dedup"
    version = 2
    schema = DEDUP
    rows_from = "cluster"
    also_reads = ("embed", "download", "ingest")
    config: DedupSection

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        uid = np.concatenate([np.empty(0, "S32"), *(uid_array(table) for table in _tables(inputs, ["uid"]))])
        verdict, metrics = self._search(inputs, uid)
        group = verdict.groups()
        first = 0
        for shard in inputs.shards("cluster"):
            table = inputs.table("cluster", shard, self.schema.names)
            numbers = np.arange(first, first + table.num_rows)
            first += table.num_rows
            found = duplicates(uid, verdict, group, numbers[verdict.by[numbers] >= 0])
            path = inputs.scratch / f"{shard}.duplicates.parquet"
            pq.write_table(found, path)
            urls = align(inputs.table("download", shard, ["uid", "url"]), found.column("uid")).column("url")
            kept = table.filter(pa.array(verdict.by[numbers] < 0)).cast(self.schema)
            yield shard, ShardOutput(kept, ledger_rows(found, urls), {"duplicates": path}, metrics)
            metrics = {}

    def _search(self, inputs: GatherInput, uid: np.ndarray) -> tuple[Verdict, dict[str, float]]:
        config = self.config
        verdict = Verdict(len(uid))
        metrics: dict[str, float] = {}
        live = keep_order(config, uid, partial(_columns, inputs))
        if config.exact:
            (hashes,) = _columns(inputs, "download", {"sha256": "S64"})
            live = verdict.record(live, "exact", exact_duplicates(hashes[live]))
            del hashes
        if config.hamming is not None:
            (hashes,) = _columns(inputs, "download", {"phash": "u8"})
            live = verdict.record(live, "perceptual", *perceptual_duplicates(hashes[live], config.hamming))
            del hashes
        if config.epsilon is not None and len(live):
            (cluster,) = _columns(inputs, "cluster", {"cluster": "i4"})
            by, cosine, metrics = semantic_search(inputs, config, live, cluster, uid, config.resources.device)
            verdict.record(live, "semantic", by, cosine)
        return verdict, metrics


def _tables(inputs: GatherInput, columns: list[str]) -> Iterator[pa.Table]:
    return (inputs.table("cluster", shard, columns) for shard in inputs.shards("cluster"))


def _columns(inputs: GatherInput, stage: str, dtypes: dict[str, str]) -> list[np.ndarray]:
    """Columns of a stage's tables for all rows, in the order of the clustered tables; null numbers are NaN."""
    parts: list[list[np.ndarray]] = [[np.empty(0, dtype)] for dtype in dtypes.values()]
    for shard in inputs.shards("cluster"):
        table = inputs.table(stage, shard, ["uid", *dtypes])
        if stage != "cluster":
            table = align(table, inputs.table("cluster", shard, ["uid"]).column("uid"))
        for part, (name, dtype) in zip(parts, dtypes.items(), strict=True):
            column = table.column(name)
            part.append(np.array(column.to_pylist(), dtype) if dtype[0] == "S" else column.to_numpy().astype(dtype))
    return [np.concatenate(part) for part in parts]
