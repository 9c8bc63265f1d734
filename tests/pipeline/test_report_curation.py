import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipeline.report.curation as part
from pipeline.finish import write_report
from pipeline.report.charts import chart, histogram
from pipeline.report.curation import Curation, curation
from pipeline.report.tiles import Tile
from pipeline.store import CommittedImages
from tests.fakes.pictured_run import CLUSTERS, EPSILON, Pictured, pictured_run

METRICS = {
    **{"recall_rows": 0.99, "recall_rows_of": 200, "recall_rows_low": 0.95, "recall_rows_high": 0.999},
    **{"recall_pairs": 0.98, "recall_pairs_of": 340},
    **{"residual": 0.001, "residual_of": 700, "residual_low": 0.0, "residual_high": 0.01},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Pictured:
    return pictured_run(tmp_path_factory.mktemp("look") / "run")


def of(run: Pictured, deduplicated: bool = True) -> Curation:
    found = curation(run.store, CommittedImages(run.store), run.config.dedup, deduplicated, METRICS)
    assert found is not None
    return found


def shows(run: Pictured, tile: Tile) -> bool:
    """Whether a tile holds the picture of its row."""
    assert tile.picture is not None
    image = Image.open(io.BytesIO(base64.b64decode(tile.picture.split(",")[1]))).convert("RGB")
    colour = np.asarray(image, float).mean((0, 1))
    return (tile.width, tile.height) == (48, 32) and np.abs(colour - run.colours[int(tile.uid, 16)]).max() < 8


def test_both_sides_of_the_threshold_are_shown_nearest_first(run: Pictured) -> None:
    found = of(run).duplicates
    assert found is not None
    removals = {str(d["uid"]): d for d in run.duplicates if d["kind"] == "semantic"}
    lowest = sorted(removals.values(), key=lambda d: float(str(d["cosine"])))[: len(found.above)]
    assert [(p.left.uid, p.right.uid) for p in found.above] == [(d["uid"], d["kept_uid"]) for d in lowest]
    assert [p.measure for p in found.above] == [f"cosine {d['cosine']:.4f}" for d in lowest]
    assert {(p.left.role, p.right.role) for p in found.above} == {("removed", "kept")}
    assert all(shows(run, tile) for p in found.above for tile in (p.left, p.right))
    gone = {d["uid"] for d in run.duplicates}
    below = [float(p.measure.removeprefix("cosine ")) for p in found.below]
    assert below == sorted(below, reverse=True) and 0.5 < below[0] <= 1 - EPSILON
    assert not gone & {tile.uid for p in found.below for tile in (p.left, p.right)}


def test_copies_of_each_kind_and_their_numbers_are_shown(run: Pictured) -> None:
    found = of(run).duplicates
    assert found is not None
    assert {kind: [p.measure for p in pairs] for kind, pairs in found.copies.items()} == {
        "exact": ["same bytes"],
        "perceptual": ["2 bits apart"],
    }
    assert found.removed == {"exact": 1, "perceptual": 1, "semantic": len(run.duplicates) - 2}
    assert [(e.share, e.low, e.of) for e in found.recall] == [(0.99, 0.95, 200), (0.98, None, 340), (0.001, 0.0, 700)]
    sizes = np.unique([str(d["group"]) for d in run.duplicates], return_counts=True)[1]
    assert found.groups[0].removed == sizes.max()
    assert sum(bar.count for bar in found.group_sizes.bars) == len(sizes)


def test_clusters_are_shown_from_their_middle_to_their_edge(run: Pictured) -> None:
    whole = of(run)
    sizes = np.bincount(run.clusters)
    assert whole.clusters[0].number == sizes.argmax() and "smallest" in [c.why for c in whole.clusters]
    for cluster in whole.clusters:
        rows = np.flatnonzero(run.clusters == cluster.number)
        ranked = rows[np.argsort(-run.cosines[rows], kind="stable")]
        assert [int(tile.uid, 16) for tile in cluster.nearest] == ranked[: len(cluster.nearest)].tolist()
        assert [int(tile.uid, 16) for tile in cluster.farthest] == ranked[::-1][: len(cluster.farthest)].tolist()
        assert cluster.size == len(rows) >= len(cluster.nearest) + len(cluster.farthest)
        assert cluster.mean_cosine == pytest.approx(run.cosines[rows].mean())
    assert sum(bar.count for bar in whole.cluster_sizes.bars) == CLUSTERS


def test_a_large_run_is_shown_by_a_sample_that_says_so(run: Pictured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ROWS", 100)
    found = of(run)
    assert found.extent.rows in (70, 100)  # shards of 50, 50 and 20
    assert found.sweep is None and found.duplicates is not None
    seen = {f"{n:032x}" for shard in found.extent.shards for n in range(50 * int(shard), 50 * int(shard) + 50)}
    tiles = [tile for p in found.duplicates.above + found.duplicates.below for tile in (p.left, p.right)]
    assert tiles and {tile.uid for tile in tiles} <= seen
    write_report(run.config, str(run.folder))
    page = (run.folder / "report/index.html").read_text()
    assert "A sample: 2 of" in page and "dedup-sweep RUN" in page


def test_the_report_has_the_part_as_far_as_the_run_has_come(run: Pictured, tmp_path: Path) -> None:
    page = write_report(run.config, str(run.folder)).read_text()
    assert all(title in page for title in ("just above the threshold", "just below", "Largest groups", "Clusters ·"))
    assert "All 120 embedded rows" in page and "this run" in page
    unfinished = pictured_run(tmp_path / "run", deduplicated=False)
    page = write_report(unfinished.config, str(unfinished.folder)).read_text()
    assert "Clusters ·" in page and "just above the threshold" not in page
    unfinished.store.withdraw("cluster", "all")
    assert 'id="curation"' not in write_report(unfinished.config, str(unfinished.folder)).read_text()


def test_a_run_that_looks_for_no_semantic_copies_shows_no_threshold(run: Pictured) -> None:
    config = run.config.dedup.model_copy(update={"epsilon": None})
    found = curation(run.store, CommittedImages(run.store), config, True, {})
    assert found is not None and found.duplicates is not None and found.sweep is not None
    assert found.duplicates.below == [] and found.sweep.own is None and found.sweep.chart.mark is None


def test_pictures_that_are_gone_leave_a_gap(tmp_path: Path) -> None:
    run = pictured_run(tmp_path / "run")
    for path in run.folder.glob("download/data/*.tar"):
        path.unlink()
    found = of(run).duplicates
    assert found is not None and {tile.picture for p in found.above for tile in (p.left, p.right)} == {None}
    assert "cannot be shown" in write_report(run.config, str(run.folder)).read_text()


@pytest.mark.parametrize(
    ("values", "labels", "counts", "log"),
    [
        ([2, 2, 3], ["2", "3"], [2, 1], False),
        ([5], ["5"], [1], False),
        ([1, 1, 2, 3, 40], ["1", "2–3", "4–7", "8–15", "16–31", "32–63"], [2, 2, 0, 0, 0, 1], False),
        ([2] * 60 + [3], ["2", "3"], [60, 1], True),
        ([], [], [], False),
    ],
)
def test_sizes_fall_into_few_bins(values: list[int], labels: list[str], counts: list[int], log: bool) -> None:
    drawn = histogram(np.array(values, np.int64))
    assert ([b.label for b in drawn.bars], [b.count for b in drawn.bars], drawn.log) == (labels, counts, log)


@pytest.mark.parametrize("highest", [13, 29, 30, 1000, 2**40])
def test_every_size_has_its_bin(highest: int) -> None:
    sizes = np.unique(np.geomspace(1, highest, 50).astype(np.int64))
    bars = histogram(sizes).bars
    assert len(bars) <= 13 and sum(bar.count for bar in bars) == len(sizes) and max(b.height for b in bars) == 1


def test_a_chart_runs_from_its_first_threshold_to_its_last() -> None:
    drawn = chart({"greedy": [0.0, 0.04, 0.3]}, [0.01, 0.1, 1.0], 0.1)
    assert dataclasses.astuple(drawn.curves[0])[1] == [(0, 0), (0.5, 0.08), (1, 0.6)]
    assert (drawn.top, drawn.mark, [label for _, label in drawn.ticks]) == (0.5, 0.5, ["0.01", "0.1", "1"])
