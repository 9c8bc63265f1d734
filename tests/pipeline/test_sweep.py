import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.finish import sweep_dedup
from pipeline.sample import Sample, clusters_of, draw, extent_of
from pipeline.sweep import RULES, compared, further_columns, pairs_near, parse_epsilons, survivors, sweep
from schemas.errors import RequestError
from tests.fakes.pictured_run import CLUSTERS, EPSILON, Pictured, pictured_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Pictured:
    return pictured_run(tmp_path_factory.mktemp("look") / "run", deduplicated=False)


def drawn(run: Pictured, rows: int, shards: int | None = None) -> Sample:
    extent = extent_of(run.store, shards)
    return draw(run.store, extent, clusters_of(run.store, extent), rows)


def numbers(sample: Sample) -> np.ndarray:
    return np.array([int(uid, 16) for uid in sample.rows.column("uid").to_pylist()])


def brute_force(run: Pictured, rows: list[int], tau: float, rule: str) -> tuple[int, int]:
    """Rows that go and the kept rows they go for, with every pair compared."""
    root: dict[int, int] = {}
    for place, row in enumerate(rows):
        for other in rows[:place]:
            cosine = run.vectors[row].astype(np.float64) @ run.vectors[other].astype(np.float64)
            near = run.clusters[row] == run.clusters[other] and cosine > tau
            if near and (rule == "semdedup" or root[other] == other):
                root[row] = root[other]
                break
        else:
            root[row] = row
    gone = [row for row in rows if root[row] != row]
    return len(gone), len({root[row] for row in gone})


def test_the_figures_are_those_of_brute_force(run: Pictured) -> None:
    sample = drawn(run, 1000)
    rows = numbers(sample)[survivors(sample, run.config.dedup)].tolist()
    assert len(rows) == len(run.uids) - 2  # one copy to the byte, one to the eye
    epsilons = [0.01, EPSILON, 0.3, 0.6]
    points = sweep(sample, run.config.dedup, epsilons)
    assert [(p.rule, p.epsilon) for p in points] == [(rule, e) for rule in RULES for e in epsilons]
    for point in points:
        assert (point.removed, point.groups) == brute_force(run, rows, 1 - point.epsilon, point.rule), point
        assert point.share == point.removed / len(rows)
    assert len({point.removed for point in points}) > 4


def test_a_sample_is_whole_clusters_and_the_same_however_rows_lie_in_shards(run: Pictured, tmp_path: Path) -> None:
    sample = drawn(run, 50)
    clusters = set(run.clusters[numbers(sample)].tolist())
    assert 50 <= len(sample) < 100 and len(clusters) == sample.clusters < CLUSTERS
    assert len(sample) == np.isin(run.clusters, list(clusters)).sum()
    np.testing.assert_allclose(sample.vectors, run.vectors[numbers(sample)], atol=1e-3)
    other = drawn(pictured_run(tmp_path / "other", shard_rows=17, deduplicated=False), 50)
    columns = ["uid", "cluster", "centroid_cosine", "sha256", "phash"]
    assert other.rows.select(columns).equals(sample.rows.select(columns))
    assert np.array_equal(other.vectors, sample.vectors)


def test_clusters_above_the_size_of_a_sample_are_counted_and_left_out(run: Pictured) -> None:
    sizes = np.bincount(run.clusters)
    sample = drawn(run, int(sizes.max()) - 1)
    assert sample.too_large == sizes[sizes == sizes.max()].sum()
    assert np.bincount(run.clusters[numbers(sample)], minlength=CLUSTERS)[sizes.argmax()] == 0


def test_of_a_large_run_some_shards_are_looked_at(run: Pictured) -> None:
    extent = extent_of(run.store, 100)
    assert (len(extent.shards), extent.of_shards, extent.of_rows) == (2, 3, 120) and not extent.whole
    assert extent.rows == clusters_of(run.store, extent).size.sum() <= 100
    assert extent_of(run.store).whole


def test_the_pairs_next_to_a_threshold_are_the_nearest_ones(run: Pictured) -> None:
    sample = drawn(run, 1000)
    rows = numbers(sample)
    cosines = run.vectors[rows].astype(np.float64) @ run.vectors[rows].astype(np.float64).T
    together = np.triu(run.clusters[rows][:, None] == run.clusters[rows], 1)
    for tau, (above, below) in zip(
        (0.95, 0.7),
        pairs_near(sample, compared(sample, run.config.dedup), np.arange(len(rows)), (0.95, 0.7), 5),
        strict=True,
    ):
        assert all(pair.cosine == pytest.approx(cosines[pair.a, pair.b], abs=1e-6) for pair in above + below)
        assert [p.cosine for p in above] == sorted(p.cosine for p in above)
        assert above[0].cosine == pytest.approx(cosines[together & (cosines > tau)].min())
        assert below[0].cosine == pytest.approx(cosines[together & (cosines <= tau)].max())
        assert all(len({row for pair in side for row in (pair.a, pair.b)}) == 2 * len(side) for side in (above, below))
    assert pairs_near(sample, compared(sample, run.config.dedup), np.zeros(0, np.int64), [0.9], 5) == [([], [])]


def test_the_command_answers_and_writes_a_page_before_dedup_has_run(run: Pictured) -> None:
    words = ["dedup-sweep", str(run.folder), "--epsilon", "0.1,0.02", "--rows", "1000", "--json"]
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["rows"], answer["sampled"], answer["compared"], answer["own"]) == (120, 120, 118, EPSILON)
    assert {point["epsilon"] for point in answer["points"]} == {0.02, EPSILON, 0.1}
    page = Path(answer["page"]).read_text()
    assert page.count("this run") == 3  # on the chart, in the table, over its pairs
    assert page.count("data:image/webp") > 12


def test_without_clusters_the_command_says_what_it_needs(tmp_path: Path) -> None:
    bare = pictured_run(tmp_path / "run", deduplicated=False)
    bare.store.withdraw("cluster", "all")
    with pytest.raises(RequestError, match="needs `embed` and `cluster` done"):
        sweep_dedup(bare.config, str(bare.folder), [0.1], 100)


@pytest.mark.parametrize("text", ["0", "1.1", "a", "", "0.1,,0.2", "nan"])
def test_thresholds_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--epsilon"):
        parse_epsilons(text)


@pytest.mark.parametrize("keep", ["easy", "random", "resolution", "aesthetic"])
def test_rows_are_tried_in_the_order_of_every_survivor(run: Pictured, keep: str) -> None:
    config = run.config.dedup.model_copy(update={"keep": keep})
    extent = extent_of(run.store)
    sample = draw(run.store, extent, clusters_of(run.store, extent), 1000, further_columns(config))
    rows = numbers(sample)[survivors(sample, config)]
    best = {"easy": -run.cosines[rows], "resolution": rows, "aesthetic": rows}.get(keep)
    assert best is None or (np.diff(best) >= 0).all()
    (point, _) = sweep(sample, config, [EPSILON])
    assert (point.removed, point.groups) == brute_force(run, rows.tolist(), 1 - EPSILON, "greedy")


def test_centred_vectors_are_compared_as_the_stage_compares_them(run: Pictured) -> None:
    sample = drawn(run, 1000)
    config = run.config.dedup.model_copy(update={"centring": True})
    centred = run.vectors[numbers(sample)] - run.vectors.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(compared(sample, config).unit(slice(None)), centred, atol=1e-4)
