import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from stages.cluster import ClusterSection, ClusterStage
from stages.curate.vectors import Vectors
from tests.fakes.memory_gather import MemoryGather, run_gather


def embedded(n, width=8, seed=0):
    """Rows of `embed`: uid to float16 vector, around four directions."""
    rng = np.random.default_rng(seed)
    rows = np.eye(width)[np.arange(n) % 4] + 0.1 * rng.standard_normal((n, width))
    vectors = Vectors.of(rows.astype(np.float32)).unit(slice(None)).astype(np.float16)
    return {hashlib.md5(str(i).encode()).hexdigest(): vector for i, vector in enumerate(vectors)}


def table(rows, width=8):
    flat = np.array(list(rows.values()), np.float16).reshape(-1)
    return pa.table({"uid": pa.array(rows, pa.string()), "embedding": pa.FixedSizeListArray.from_arrays(flat, width)})


def cut(rows, size):
    uids = list(rows)
    return {f"{i // size:05d}": table({u: rows[u] for u in uids[i : i + size]}) for i in range(0, len(uids), size)}


class Cluster:
    """Runs the stage, each time in a folder of its own."""

    def __init__(self, folder):
        self._folder = folder
        self._runs = 0

    def inputs(self, shards, kind=MemoryGather):
        self._runs += 1
        folder = self._folder / str(self._runs)
        folder.mkdir()
        return kind(folder, {"embed": shards})

    def __call__(self, shards, **config):
        return run_gather(ClusterStage(ClusterSection(**config)), self.inputs(shards))


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def by_uid(outputs):
    return {row.pop("uid"): row for output in outputs.values() for row in output.rows.to_pylist()}


def contents(outputs):
    return {kind: path.read_bytes() for kind, path in outputs["00000"].files.items()}


def test_every_row_gets_its_nearest_centroids(cluster):
    rows = embedded(100)
    outputs = cluster(cut(rows, 30), k=6, iterations=20, nredo=3, neighbours=3)
    assert list(outputs) == ["00000", "00001", "00002", "00003"]
    assert [sorted(o.files) for o in outputs.values()] == [["centroids", "objective"], [], [], []]
    centroids = np.load(outputs["00000"].files["centroids"])
    assert centroids.shape == (6, 8)
    for uid, row in by_uid(outputs).items():
        cosines = Vectors.of(rows[uid][None]).unit(slice(None))[0].astype(np.float64) @ centroids.T
        best = np.argsort(-cosines)[:3]
        assert [row["cluster"], *row["near_clusters"]] == best.tolist()
        np.testing.assert_allclose([row["centroid_cosine"], *row["near_cosines"]], cosines[best], rtol=1e-7)
    metrics = outputs["00000"].metrics
    assert (metrics["k"], metrics["training_rows"], metrics["reseeded"]) == (6, 100, 0)
    (curve,) = json.loads(outputs["00000"].files["objective"].read_text())
    assert (curve["k"], len(curve["objective"])) == (6, metrics["iterations"])
    assert curve["objective"][-1] == metrics["objective"] == pytest.approx(metrics["cosine_sum"] / 30, abs=0.02)


LEVELS = {"levels": [3, 9], "probes": 2, "neighbours": 12}


@pytest.mark.parametrize("further", [{}, LEVELS, {"engine": "faiss"}])
def test_neither_shards_nor_threads_matter(cluster, further, monkeypatch):
    monkeypatch.setattr("stages.cluster.assignment.PIECE_ROWS", 50)
    monkeypatch.setattr("stages.cluster.training.SPLIT_ROWS", 64)
    rows = embedded(400)
    rows[next(iter(rows))] = np.zeros(8, np.float16)
    config = {"k": 36, "train_rows_per_centroid": 9, "iterations": 10} | further
    one = cluster(cut(rows, 64), **config)
    assert one["00000"].metrics["training_rows"] == 324
    moved = cluster(cut(dict(reversed(rows.items())), 7), resources={"cpus": 2}, **config)
    assert contents(moved) == contents(one)
    assert by_uid(moved) == by_uid(one)
    lost = by_uid(one)[next(iter(rows))]
    assert (lost["cluster"], lost["centroid_cosine"]) == (0, 0)


def test_levels(cluster):
    rows = embedded(400)
    outputs = cluster(cut(rows, 200), k=36, min_rows_per_centroid=1, **LEVELS)
    parents = np.load(outputs["00000"].files["parents"])
    assert (parents.shape, parents.dtype) == ((36, 2), np.int32)
    assert (np.diff(parents, axis=0) >= 0).all()
    assert [len(np.unique(parents[:, i])) for i in range(2)] == [3, 9]
    curves = json.loads(outputs["00000"].files["objective"].read_text())
    assert [curve["k"] for curve in curves] == [3, 9, 36]
    assert curves[0]["objective"][-1] < curves[1]["objective"][-1] < curves[2]["objective"][-1]
    fewer = [len(row["near_clusters"]) for row in by_uid(outputs).values()]
    assert min(fewer) < 11
    assert max(fewer) <= 11
    flat = cluster(cut(rows, 200), k=36, min_rows_per_centroid=50, **LEVELS)
    assert [c["k"] for c in json.loads(flat["00000"].files["objective"].read_text())] == [3, 8]


class KilledError(Exception):
    pass


class Dying(MemoryGather):
    """Dies when it is asked for the given table; counts the tables that are asked for."""

    dies_at = -1
    asked = 0

    def table(self, stage, shard, columns=None):
        self.asked += 1
        if self.asked == self.dies_at:
            raise KilledError
        return super().table(stage, shard, columns)


@pytest.mark.parametrize("config", [{}, LEVELS])
def test_a_killed_attempt_is_gone_on_with(cluster, config, monkeypatch):
    monkeypatch.setattr("stages.cluster.assignment.PIECE_ROWS", 50)
    shards = cut(embedded(200), 50)
    stage = ClusterStage(ClusterSection(k=12, **config))
    whole = dict(stage.process(unbroken := cluster.inputs(shards, Dying)))
    for dies_at in range(1, unbroken.asked + 1):
        inputs = cluster.inputs(shards, Dying)
        inputs.dies_at = dies_at
        with pytest.raises(KilledError):
            list(stage.process(inputs))
        inputs.asked, inputs.dies_at = 0, -1
        resumed = dict(stage.process(inputs))
        assert contents(resumed) == contents(whole)
        assert by_uid(resumed) == by_uid(whole)
    assert inputs.asked < unbroken.asked


def test_k_falls_with_the_rows(cluster):
    outputs = cluster(cut(embedded(25), 10), k=50_000, min_rows_per_centroid=10)
    assert outputs["00000"].metrics["k"] == 2
    assert np.load(outputs["00000"].files["centroids"]).shape == (2, 8)
    assert [len(row["near_clusters"]) for row in by_uid(outputs).values()] == [1] * 25
    one = cluster(cut(embedded(1), 1), k=3)
    assert one["00000"].metrics["k"] == 1
    assert by_uid(one).popitem()[1]["near_clusters"] == []


def test_empty_shards_and_empty_runs(cluster):
    shards = cut(embedded(20), 10) | {"00002": table({}), "00000": table({})}
    outputs = cluster(shards, k=2, min_rows_per_centroid=1)
    assert [o.rows.num_rows for o in outputs.values()] == [0, 10, 0]
    assert "centroids" in outputs["00000"].files
    assert cluster({"00000": table({})}, k=2)["00000"].rows.num_rows == 0
    assert cluster({}, k=2) == {}


def test_rows_that_all_lack_a_direction(cluster):
    rows = dict.fromkeys(embedded(10), np.full(8, np.nan, np.float16))
    outputs = cluster(cut(rows, 10), k=2, min_rows_per_centroid=1)
    assert {(row["cluster"], row["centroid_cosine"]) for row in by_uid(outputs).values()} == {(0, 0)}


@pytest.mark.parametrize("levels", [[0], [5, 5], [9, 3], [100]])
def test_levels_must_rise(levels):
    with pytest.raises(ValidationError, match="levels"):
        ClusterSection(k=100, levels=levels)
