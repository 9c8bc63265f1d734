import hashlib
import io

import numpy as np
import pyarrow as pa
import pytest

from stages.cluster import ClusterSection, ClusterStage
from stages.curate.vectors import normalised
from tests.fakes.memory_gather import MemoryGather, run_gather


def embedded(n, width=8, seed=0):
    """Rows of `embed`: uid to float16 vector, around four directions."""
    rng = np.random.default_rng(seed)
    vectors = normalised(np.eye(width)[np.arange(n) % 4] + 0.1 * rng.standard_normal((n, width))).astype(np.float16)
    return {hashlib.md5(str(i).encode()).hexdigest(): vector for i, vector in enumerate(vectors)}


def table(rows, width=8):
    flat = np.array(list(rows.values()), np.float16).reshape(-1)
    return pa.table({"uid": pa.array(rows, pa.string()), "embedding": pa.FixedSizeListArray.from_arrays(flat, width)})


def cut(rows, size):
    uids = list(rows)
    return {f"{i // size:05d}": table({u: rows[u] for u in uids[i : i + size]}) for i in range(0, len(uids), size)}


def run(tmp_path, shards, **config):
    return run_gather(ClusterStage(ClusterSection(**config)), MemoryGather(tmp_path, {"embed": shards}))


def by_uid(outputs):
    return {r["uid"]: (r["cluster"], r["centroid_cosine"]) for o in outputs.values() for r in o.rows.to_pylist()}


def test_every_row_gets_its_nearest_centroid(tmp_path):
    rows = embedded(100)
    outputs = run(tmp_path, cut(rows, 30), k=4, iterations=20, nredo=3)
    assert list(outputs) == ["00000", "00001", "00002", "00003"]
    assert [list(o.files) for o in outputs.values()] == [["centroids"], [], [], []]
    centroids = np.load(outputs["00000"].files["centroids"])
    assert centroids.shape == (4, 8)
    for uid, (cluster, cosine) in by_uid(outputs).items():
        cosines = normalised(rows[uid][None])[0] @ centroids.T
        assert cluster == cosines.argmax()
        assert cosine == pytest.approx(cosines.max(), abs=1e-6)
    assert outputs["00000"].metrics["k"] == 4
    assert outputs["00000"].metrics["training_rows"] == 100


def test_two_runs_are_the_same_and_shards_do_not_matter(tmp_path):
    rows = embedded(200)
    config = {"k": 6, "train_rows_per_centroid": 20, "iterations": 10}
    one = run(tmp_path, cut(rows, 64), **config)
    assert one["00000"].metrics["training_rows"] == 120
    centroids = one["00000"].files["centroids"].read_bytes()
    assert all(
        a.rows.equals(b.rows)
        for a, b in zip(one.values(), run(tmp_path, cut(rows, 64), **config).values(), strict=True)
    )
    moved = run(tmp_path, cut(dict(reversed(rows.items())), 7), **config)
    assert moved["00000"].files["centroids"].read_bytes() == centroids
    assert {u: c for u, (c, _) in by_uid(moved).items()} == {u: c for u, (c, _) in by_uid(one).items()}


def test_k_falls_with_the_rows(tmp_path):
    outputs = run(tmp_path, cut(embedded(25), 10), k=50_000, min_rows_per_centroid=10)
    assert outputs["00000"].metrics["k"] == 2
    assert np.load(io.BytesIO(outputs["00000"].files["centroids"].read_bytes())).shape == (2, 8)
    assert run(tmp_path, cut(embedded(1), 1), k=3)["00000"].metrics["k"] == 1


def test_empty_shards_and_empty_runs(tmp_path):
    shards = cut(embedded(20), 10) | {"00002": table({}), "00000": table({})}
    outputs = run(tmp_path, shards, k=2, min_rows_per_centroid=1)
    assert [o.rows.num_rows for o in outputs.values()] == [0, 10, 0]
    assert "centroids" in outputs["00000"].files
    assert run(tmp_path, {"00000": table({})}, k=2)["00000"].rows.num_rows == 0
    assert run(tmp_path, {}, k=2) == {}
