"""`cluster`: spherical k-means over all vectors; every row gets its centroid."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pydantic import Field

from schemas.section import StageSection
from schemas.tables import CLUSTER
from stages.base import GatherInput, GatherStage, ShardOutput
from stages.curate.kmeans import SphericalKMeans, allowed_k, training_rows
from stages.curate.vectors import uid_array, unit_rows


class ClusterSection(StageSection):
    """k-means; the paper gives k alone, the other defaults are those of SemDeDup's code and of FAISS."""

    k: int = Field(50_000, ge=1, description="centroids (DenseFusion section 3.1)")
    min_rows_per_centroid: int = Field(
        10,
        ge=1,
        description="where rows are fewer than k times this, k becomes rows // this (at least 1), in the metrics",
    )
    iterations: int = Field(100, ge=1, description="Lloyd iterations; SemDeDup's clustering uses 100")
    train_rows_per_centroid: int = Field(
        256, ge=1, description="most rows per centroid that training sees, drawn by uid and seed; FAISS' own default"
    )
    nredo: int = Field(1, ge=1, description="independent starts, the best objective wins")
    seed: int = Field(1234, ge=0, lt=2**31, description="of the training draw and of the first centroids; SemDeDup's")


class ClusterStage(GatherStage):
    """Trains on a draw of the rows, then assigns shard by shard.

    Memory: the training rows as float32, one shard, and 40 bytes for every row of the run. The first shard carries the
    centroids as a file of kind `centroids` (.npy, float32, (k, width)).
    """

    name = "cluster"
    version = 1
    schema = CLUSTER
    rows_from = "embed"
    config: ClusterSection

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        config = self.config
        shards = inputs.shards("embed")
        uids = [uid_array(inputs.table("embed", shard, ["uid"])) for shard in shards]
        total = sum(map(len, uids))
        if total == 0:
            yield from ((shard, ShardOutput(self.schema.empty_table())) for shard in shards)
            return
        k = allowed_k(config.k, total, config.min_rows_per_centroid)
        kmeans = SphericalKMeans(config.iterations, config.seed, config.nredo)
        sample = training_rows(np.concatenate(uids), k * config.train_rows_per_centroid, config.seed)
        centroids = kmeans.fit(_gather(inputs, shards, sample), k)
        for place, shard in enumerate(shards):
            table = inputs.table("embed", shard)
            labels, cosines = kmeans.assign(unit_rows(table.column("embedding")), centroids)
            columns = [table.column("uid"), pa.array(labels), pa.array(cosines)]
            output = ShardOutput(pa.table(columns, schema=self.schema), metrics={"cosine_sum": float(cosines.sum())})
            if place == 0:
                output.files["centroids"] = inputs.scratch / "centroids.npy"
                np.save(output.files["centroids"], centroids)
                output.metrics |= {"k": k, "training_rows": len(sample)}
            yield shard, output


def _gather(inputs: GatherInput, shards: list[str], sample: np.ndarray) -> np.ndarray:
    """The sampled rows (numbers over all shards) as float32 unit vectors, in the sample's order."""
    by_row = np.argsort(sample)
    numbers = sample[by_row]
    rows: np.ndarray | None = None
    first = 0
    for shard in shards:
        table = inputs.table("embed", shard)
        lo, hi = np.searchsorted(numbers, (first, first + table.num_rows))
        if hi > lo:
            part = unit_rows(table.column("embedding").take(pa.array(numbers[lo:hi] - first)))
            if rows is None:
                rows = np.empty((len(sample), part.shape[1]), np.float32)
            rows[by_row[lo:hi]] = part
        first += table.num_rows
    assert rows is not None
    return rows
