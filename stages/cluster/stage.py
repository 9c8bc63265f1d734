"""The stage: training on a draw of the rows, then the assignment of all."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas.tables import CLUSTER
from stages.base import GatherInput, GatherStage, ShardOutput
from stages.cluster.assignment import assign_shards
from stages.cluster.rows import sampled_units
from stages.cluster.section import ClusterSection
from stages.cluster.training import SAMPLE, train_tree
from stages.curate.kmeans import Trained, Tree, allowed_k, training_rows
from stages.curate.vectors import uid_array
from stages.kept import kept_array


class ClusterStage(GatherStage):
    """Trains on a draw of the rows, then assigns all of them.

    The draw goes by uid, training is the same for any number of threads, and the assignment is exact; so each row's
    centroids depend neither on how rows are spread over shards nor on how many workers there are. A row without
    direction gets cluster 0 and a cosine of 0. A kill costs one iteration of training; below the top level and in the
    assignment, the pieces of work at hand.

    Memory: the training rows as float16, in a file that is mapped; the labels and sums of training; in a worker the
    rows of one piece of work; 40 bytes for every row of the run. The first shard carries files of kinds `centroids`
    (.npy, float32, (k, width)), `objective` (JSON, a list of {"k", "objective"} for each level, from the top: the
    training rows' mean cosine to their centroids after each iteration) and, with levels, `parents` (.npy, int32,
    (k, levels above): the ancestors of each centroid, from the top).
    """

    name = "cluster"
    version = 2
    schema = CLUSTER
    rows_from = "embed"
    config: ClusterSection

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        config = self.config
        shards = inputs.shards("embed")
        uids = [uid_array(inputs.table("embed", shard, ["uid"])) for shard in shards]
        rows = list(map(len, uids))
        if sum(rows) == 0:
            yield from ((shard, ShardOutput(self.schema.empty_table())) for shard in shards)
            return
        k = allowed_k(config.k, sum(rows), config.min_rows_per_centroid)
        sample = training_rows(np.concatenate(uids), k * config.train_rows_per_centroid, config.seed)
        kept_array(inputs.kept / SAMPLE, lambda: sampled_units(inputs, shards, sample))
        tree, trained = train_tree(inputs, config, [count for count in config.levels if count < k] + [k])
        found = assign_shards(inputs, config, tree, shards, rows)
        for shard, (numbers, cosines) in zip(shards, found, strict=True):
            table = _table(inputs.table("embed", shard, ["uid"]), numbers, cosines)
            total = float(cosines[:, 0].sum(dtype=np.float64))
            output = ShardOutput(table, metrics={"cosine_sum": total})
            if shard == shards[0]:
                output.files = _files(inputs.scratch, tree, trained)
                output.metrics |= {
                    "k": k,
                    "training_rows": len(sample),
                    "iterations": len(trained[0].objective),
                    "objective": trained[-1].objective[-1] if trained[-1].objective else 0.0,
                    "reseeded": sum(level.reseeded for level in trained),
                }
            yield shard, output


def _table(uids: pa.Table, numbers: np.ndarray, cosines: np.ndarray) -> pa.Table:
    further = numbers[:, 1:] >= 0
    ends = np.append(0, further.sum(axis=1).cumsum()).astype(np.int32)
    lists = [pa.ListArray.from_arrays(ends, values[:, 1:][further]) for values in (numbers, cosines)]
    return pa.table([uids.column("uid"), numbers[:, 0], cosines[:, 0], *lists], schema=CLUSTER)


def _files(scratch: Path, tree: Tree, trained: list[Trained]) -> dict[str, Path]:
    files = {"centroids": scratch / "centroids.npy", "objective": scratch / "objective.json"}
    np.save(files["centroids"], tree.levels[-1])
    curves = [{"k": len(level.centroids), "objective": level.objective} for level in trained]
    files["objective"].write_text(json.dumps(curves))
    if tree.bounds:
        files["parents"] = scratch / "parents.npy"
        np.save(files["parents"], tree.parents())
    return files
