"""The semantic search as a stage does it: borders, workers, kills and what it says of its own recall."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.curate.semantic import sketches
from stages.curate.vectors import Vectors
from stages.dedup import DedupSection, DedupStage, layout, search
from tests.fakes.memory_gather import MemoryGather, run_gather
from tests.fakes.packaged import uid_of

N, K, WIDTH = 600, 12, 72
TAU = 0.97


class KilledError(Exception):
    pass


class Restless(MemoryGather):
    """Does items in another order, some of them twice; dies after so many that it had not done in an earlier life."""

    lives = None
    seed = None

    def spread(self, work, items):
        results = {}
        for item in np.random.default_rng(self.seed).permutation(len(items)).tolist():
            before = self.files()
            results[item] = work(self, items[item])
            if item % 3 == 0:
                work(self, items[item])
            if self.lives is not None and self.files() > before:
                self.lives -= 1
                if self.lives == 0:
                    raise KilledError
        return iter([results[item] for item in range(len(items))])

    def files(self):
        return sum(path.is_file() for path in self.kept.rglob("*"))


@pytest.fixture(scope="module")
def rows():
    """Vectors of few dimensions, in crowds that the clusters cut through; some have no direction."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((40, 8))[rng.integers(40, size=N)] + rng.standard_normal((N, 8)) * 0.22
    vectors = vectors @ np.linalg.qr(rng.standard_normal((WIDTH, 8)))[0].T
    vectors[[5, 50]] = 0
    vectors[7, 0] = np.nan
    vectors = vectors.astype(np.float16)
    unit = Vectors.of(vectors).unit(slice(None))
    centroids = unit[rng.choice(np.arange(100, N), K, replace=False)]
    best = np.argsort(-(unit @ centroids.T), axis=1, kind="stable").astype(np.int32)
    cosines = np.take_along_axis(unit @ centroids.T, best, axis=1)
    return vectors, centroids, best[:, :5], cosines[:, :5]


def gathered(folder, rows, order=None, size=70, kind=MemoryGather):
    vectors, centroids, best, cosines = rows
    order = np.arange(N) if order is None else order
    stages = {"cluster": {}, "embed": {}, "download": {}}
    for number, start in enumerate(range(0, N, size)):
        part, shard = order[start : start + size], f"{number:05d}"
        uids = [uid_of(i) for i in part.tolist()]
        columns = {
            "uid": uids,
            "cluster": best[part, 0],
            "centroid_cosine": cosines[part, 0],
            "near_clusters": list(best[part, 1:]),
            "near_cosines": list(cosines[part, 1:]),
        }
        stages["cluster"][shard] = pa.table(columns)
        flat = pa.FixedSizeListArray.from_arrays(vectors[part].reshape(-1), WIDTH)
        stages["embed"][shard] = pa.table({"uid": uids, "embedding": flat})
        stages["download"][shard] = pa.table({"uid": uids, "url": uids})
    folder = Path(tempfile.mkdtemp(dir=folder))
    np.save(folder / "centroids.npy", centroids)
    return kind(folder, stages, {"cluster": {"00000": {"centroids": folder / "centroids.npy"}}})


def stage(**config):
    return DedupStage(
        DedupSection(**{"exact": False, "hamming": None, "epsilon": 1 - TAU, "recall_sample": N} | config)
    )


def outcome(outputs):
    """What became of every row, and the metrics."""
    found = pa.concat_tables([pq.read_table(o.files["duplicates"]) for o in outputs.values()])
    kept = {uid for o in outputs.values() for uid in o.rows.column("uid").to_pylist()}
    return kept, sorted(found.to_pylist(), key=lambda row: row["uid"]), outputs["00000"].metrics


@pytest.fixture(params=[True, False], ids=["sketched", "whole"])
def sketched(request, monkeypatch):
    monkeypatch.setattr(sketches, "_FALSE_SHARE", 1 if request.param else -1)
    return request.param


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(search, "_PAIRS", 8000)
    monkeypatch.setattr(search, "_LITTLE", 0)
    monkeypatch.setattr(search, "_ROWS", 150)
    monkeypatch.setattr(layout, "_ROWS_AT_ONCE", 64)


def greedy_over_everything(rows):
    vectors, _, _, cosines = rows
    unit = Vectors.of(vectors).unit(slice(None)).astype(np.float64)
    order = np.lexsort(([uid_of(i) for i in range(N)], cosines[:, 0]))
    close = np.minimum(unit @ unit.T, 1) > 1 - (1 - TAU)
    kept = []
    for row in order.tolist():
        if not close[row, kept].any():
            kept.append(row)
    return {uid_of(row) for row in kept}


def test_borders_find_what_clusters_hide(tmp_path, rows, sketched):
    kept, metrics = {}, {}
    for border in ("none", "margin", "exact"):
        config = stage(border=border, border_margin=0.1)
        inputs = gathered(tmp_path, rows)
        kept[border], _, metrics[border] = outcome(run_gather(config, inputs))
        assert (inputs.kept / "sketches.npy").exists() == (sketched and border != "none")
    assert kept["exact"] == greedy_over_everything(rows)
    assert len(kept["none"]) > len(kept["margin"]) > len(kept["exact"])
    # every row is in the sample, so what the search says of itself is the truth
    assert metrics["exact"]["recall_rows"] == metrics["exact"]["recall_pairs"] == 1
    assert metrics["exact"]["residual"] == 0
    assert metrics["none"]["recall_rows"] < metrics["margin"]["recall_rows"] < 1
    assert metrics["none"]["residual"] > metrics["margin"]["residual"] > 0
    assert metrics["none"]["residual_of"] == len(kept["none"])


def test_some_rows_know_fewer_neighbours(tmp_path, rows):
    inputs = gathered(tmp_path, rows)
    want = outcome(run_gather(stage(border_margin=0.1), inputs))
    margin = 0.1 * (1 - TAU**2) ** 0.5
    for shard, table in inputs._stages["cluster"].items():
        apart = np.array(table["centroid_cosine"])[:, None] - np.array(table["near_cosines"].to_pylist())
        for name in ("near_clusters", "near_cosines"):
            # what lies beyond the margin, whatever the centroids, makes no difference; nor does an empty list
            lists = [
                [value for value, gap in zip(values, gaps, strict=True) if gap <= 2 * margin]
                for values, gaps in zip(table[name].to_pylist(), apart, strict=True)
            ]
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(lists, table[name].type))
        inputs._stages["cluster"][shard] = table
    assert len({len(lists) for lists in table["near_clusters"].to_pylist()}) > 1
    moved = gathered(tmp_path, rows)
    moved._stages = inputs._stages
    assert outcome(run_gather(stage(border_margin=0.1), moved)) == want


@pytest.mark.parametrize("rule", ["greedy", "semdedup", "components"])
@pytest.mark.parametrize(("border", "centring"), [("margin", False), ("exact", False), ("exact", True)])
def test_shards_pieces_and_workers_do_not_matter(tmp_path, rows, rule, border, centring, request):
    config = {"rule": rule, "border": border, "border_margin": 0.3, "centring": centring}
    want = outcome(run_gather(stage(**config), gathered(tmp_path, rows)))
    request.getfixturevalue("small_pieces")
    order = np.random.default_rng(1).permutation(N)
    moved = gathered(tmp_path, rows, order, size=110, kind=Restless)
    assert outcome(run_gather(stage(**config, memory_mb=16), moved)) == want


def test_centred_exact_borders_miss_nothing(tmp_path, rows):
    _, _, metrics = outcome(run_gather(stage(border="exact", centring=True), gathered(tmp_path, rows)))
    assert metrics["recall_rows_of"] > 100
    assert metrics["recall_rows"] == 1
    assert metrics["residual"] == 0


@pytest.mark.parametrize("border", ["margin", "exact"])
def test_a_killed_search_goes_on_and_ends_the_same(tmp_path, rows, border, small_pieces):
    want = outcome(run_gather(stage(border=border), gathered(tmp_path, rows)))
    inputs = gathered(tmp_path, rows, kind=Restless)
    deaths = 0
    for seed in range(60):
        inputs.lives, inputs.seed = 8, seed
        try:
            assert outcome(run_gather(stage(border=border), inputs)) == want
            break
        except KilledError:
            deaths += 1
    assert 3 < deaths < 60
