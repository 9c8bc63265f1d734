import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import RequestError
from schemas.ledger import Reason
from schemas.tables import DEDUP, DOWNLOAD, INGEST, SCORE_PRIOR, TAKING_ORDER
from stages.base import POISON_DETAIL
from stages.select import SelectSection, SelectStage
from tests.fakes.memory_gather import MemoryGather, run_gather
from tests.fakes.packaged import uid_of


def row(i, cluster=0, cosine=0.5, side=500, aesthetic=None, similarity=None, host="a.example"):
    return {
        "uid": uid_of(i),
        "url": f"http://{host}/{i}",
        "alt_text": f"picture {i}",
        "aesthetic": aesthetic,
        "similarity": similarity,
        "cluster": cluster,
        "centroid_cosine": cosine,
        "sha256": hashlib.sha256(str(i).encode()).hexdigest(),
        "phash": 0,
        "format": "jpeg",
        "width": side,
        "height": 100,
        "orientation": 1,
        "image_offset": 1000 * i,
        "image_bytes": i,
        "source": "a.parquet",
        "source_row": i,
    }


EXPERTS = ("aesthetic", "nsfw", "watermark")
COLUMNS = [f"{name}_score" for name in EXPERTS]


def said(row, expert):
    """The expert's row; a text in place of a score is its error."""
    score = row.get(f"{expert}_score")
    failed = isinstance(score, str)
    return {"uid": row["uid"], "score": None if failed else score, "error": score if failed else None}


def gather(tmp_path, rows, size=1000, parents=None):
    """`download` and `dedup` disagree in their order, and `ingest` knows more rows."""
    stages = {"dedup": {}, "cluster": {}, "download": {}, "ingest": {}}
    files = {"cluster": {"00000": {}}}
    for start in range(0, len(rows), size):
        part, shard = rows[start : start + size], f"{start // size:05d}"
        # the stated size is not the true one
        stated = [r | {"width": 1} for r in [*part, row(-1 - start)]]
        stages["ingest"][shard] = pa.Table.from_pylist(stated, schema=INGEST)
        stages["download"][shard] = pa.Table.from_pylist([*part, row(-1 - start)], schema=DOWNLOAD)
        stages["dedup"][shard] = stages["cluster"][shard] = pa.Table.from_pylist(part[::-1], schema=DEDUP)
        for name in EXPERTS:
            table = pa.Table.from_pylist([said(r, name) for r in part], schema=SCORE_PRIOR)
            stages.setdefault(f"perceive.{name}", {})[shard] = table
    if parents is not None:
        files["cluster"]["00000"]["parents"] = tmp_path / "parents.npy"
        np.save(tmp_path / "parents.npy", np.array(parents, np.int32))
    return MemoryGather(tmp_path, stages, files)


def run(tmp_path, rows, size=1000, parents=None, experts=(), **config):
    stage = SelectStage(SelectSection(**config), experts)
    stage.check()
    outputs = run_gather(stage, gather(tmp_path, rows, size, parents))
    return (
        [r for o in outputs.values() for r in o.rows.to_pylist()],
        [d for o in outputs.values() for d in o.drops],
        outputs,
    )


def test_rows_say_what_the_stages_before_found(tmp_path):
    rows = [row(i, cluster=i % 2, cosine=0.1 * i, aesthetic=float(i)) for i in range(6)]
    chosen, drops, _ = run(tmp_path, rows, size=4, per_cluster=2)
    assert [r["uid"] for r in chosen] == [uid_of(i) for i in (2, 3, 4, 5)]
    assert [r["rank"] for r in chosen] == [1, 1, 0, 0]
    assert [r["image_shard"] for r in chosen] == ["00000", "00000", "00001", "00001"]
    for r, source in zip(chosen, rows[2:], strict=True):
        shared = r.keys() & source.keys()
        assert {"alt_text", "width", "aesthetic", "image_offset", "cluster", "sha256"} <= shared
        for name in shared - {"centroid_cosine"}:
            assert r[name] == source[name]
    assert [(d.uid, d.url, d.reason) for d in drops] == [
        (uid_of(1), "http://a.example/1", Reason.NOT_SELECTED),
        (uid_of(0), "http://a.example/0", Reason.NOT_SELECTED),
    ]
    assert drops[1].detail == "per_cluster 2: place 2 of 3 in cluster 0, counted from 0"


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"rank_by": "centroid_cosine"}, 1),
        ({"rank_by": "centroid_cosine", "direction": "ascending"}, 0),
        ({"rank_by": "resolution"}, 2),
        ({"rank_by": "aesthetic"}, 0),
        ({"rank_by": "aesthetic", "direction": "ascending"}, 1),
        ({"rank_by": "similarity"}, 1),
    ],
)
def test_ranking_keys(tmp_path, config, first):
    rows = [
        row(0, cosine=0.1, side=600, aesthetic=6.0, similarity=0.2),
        row(1, cosine=0.9, side=500, aesthetic=5.0, similarity=0.3),
        row(2, cosine=0.5, side=700, aesthetic=None),
    ]
    chosen, _, _ = run(tmp_path, rows, per_cluster=1, **config)
    assert [r["uid"] for r in chosen] == [uid_of(first)]


def test_random_ranking_follows_the_seed(tmp_path):
    rows = [row(i) for i in range(20)]
    draws = [
        {r["uid"] for r in run(tmp_path, rows, per_cluster=5, rank_by="random", seed=seed)[0]} for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_a_limit_takes_every_clusters_first_before_any_second(tmp_path):
    rows = [row(i, cluster=0 if i < 7 else i, cosine=0.1 * (i % 7)) for i in range(10)]
    chosen, drops, _ = run(tmp_path, rows, limit=5)
    assert sorted((r["cluster"], r["rank"]) for r in chosen) == [(0, 0), (0, 1), (7, 0), (8, 0), (9, 0)]
    assert len(drops) == 5


def test_smaller_limits_are_part_of_larger_ones_and_the_tie_is_the_seeds(tmp_path):
    rows = [row(i, cluster=i // 4, cosine=0.01 * i) for i in range(40)]
    chosen = {limit: {r["uid"] for r in run(tmp_path, rows, limit=limit)[0]} for limit in (3, 4, 11, 25)}
    assert chosen[3] < chosen[4] < chosen[11] < chosen[25]
    # which clusters go first is drawn: else the tightest always would
    draws = {frozenset(r["cluster"] for r in run(tmp_path, rows, limit=3, seed=seed)[0]) for seed in range(4)}
    assert len(draws) > 1


@pytest.mark.parametrize(("parents", "want"), [([[0]] * 9 + [[1]], [5, 5]), (None, [9, 1])])
def test_a_tree_of_clusters_shares_the_limit_from_the_top(tmp_path, parents, want):
    rows = [row(i, cluster=i // 5) for i in range(50)]
    chosen, _, _ = run(tmp_path, rows, parents=parents, balance="tree", limit=10)
    assert np.bincount([r["cluster"] // 9 for r in chosen]).tolist() == want


def test_a_domain_gives_its_best_and_makes_room(tmp_path):
    hosts = ["img.B.example:80"] * 4 + ["c.example"] * 2 + ["d.example"]
    rows = [row(i, cosine=0.9 - 0.1 * i, host=host) for i, host in enumerate(hosts)]
    chosen, drops, outputs = run(tmp_path, rows, size=3, per_domain=2, per_cluster=4, limit=3)
    # of the four of b.example the two best stay; the cluster's four are then 0, 1, 4 and 5, and the limit takes three
    assert [r["uid"] for r in chosen] == [uid_of(i) for i in (0, 1, 4)]
    assert [r["rank"] for r in chosen] == [0, 1, 4]
    assert {d.uid: d.detail for d in drops} == {
        uid_of(2): "per_domain 2: place 2 of 4 in its domain, counted from 0",
        uid_of(3): "per_domain 2: place 3 of 4 in its domain, counted from 0",
        uid_of(5): "limit 3: place 3 of 4 in the order of taking, counted from 0",
        uid_of(6): "per_cluster 4: place 4 of 5 in cluster 0, counted from 0",
    }
    metrics = outputs["00000"].metrics
    assert metrics == {"cut_by_per_domain": 2, "cut_by_per_cluster": 1, "cut_by_limit": 1}


def test_rows_without_a_host_have_no_domain(tmp_path):
    rows = [row(i, host="" if i < 5 else "b.example") for i in range(8)]
    chosen, _, _ = run(tmp_path, rows, size=3, per_domain=1)
    assert len(chosen) == 6


def test_the_order_of_taking_is_saved_whatever_the_limit(tmp_path):
    rows = [row(i, cluster=i % 3, cosine=0.01 * (i * 7 % 20)) for i in range(20)]
    tables = []
    for limit in (None, 4):
        chosen, _, outputs = run(tmp_path, rows, size=6, per_cluster=5, limit=limit, shard_rows=4)
        assert [list(o.files) for o in outputs.values()] == [["order"]] + [[]] * (len(outputs) - 1)
        order = pq.read_table(outputs["00000"].files["order"])
        assert order.schema.equals(TAKING_ORDER)
        tables.append(order.to_pylist())
        assert {r["uid"] for r in chosen} == {r["uid"] for r in tables[-1][: len(chosen)]}
    assert tables[0] == tables[1]
    assert [r["place"] for r in tables[0]] == [*range(15), *[None] * 5]
    assert [(r["cluster"], r["rank"]) for r in tables[0][15:]] == [(0, 5), (0, 6), (1, 5), (1, 6), (2, 5)]


@pytest.mark.parametrize("config", [{}, {"per_domain": 3, "balance": "tree", "rank_by": "random"}])
def test_nothing_in_nothing_out(tmp_path, config):
    chosen, drops, outputs = run(tmp_path, [], **config)
    assert chosen == drops == []
    assert pq.read_table(outputs["00000"].files["order"]).num_rows == 0


def test_rows_below_a_limit_on_a_score_make_room_for_others_and_say_why(tmp_path):
    scores = [(0.1, 5.0), (0.9, 5.0), ("did not decode: x", 5.0), (0.2, 2.0), (0.3, 5.0), (POISON_DETAIL, 1.0)]
    rows = [
        row(i, cosine=0.9 - 0.1 * i) | {"nsfw_score": nsfw, "aesthetic_score": aesthetic}
        for i, (nsfw, aesthetic) in enumerate(scores)
    ]
    limits = {"max_nsfw": 0.3, "min_aesthetic": 5, "experts": ("aesthetic", "nsfw")}
    chosen, drops, outputs = run(tmp_path, rows, size=4, per_cluster=2, **limits)
    # 0.3 and 5.0 are the limits themselves
    assert [(r["uid"], r["rank"]) for r in chosen] == [(uid_of(0), 0), (uid_of(4), 1)]
    assert [r["nsfw_score"] for r in chosen] == [pytest.approx(0.1), pytest.approx(0.3)]
    assert {d.uid: (d.reason, d.detail) for d in drops} == {
        uid_of(1): (Reason.NSFW, "nsfw 0.9 is above max_nsfw 0.3"),
        uid_of(2): (Reason.EXPERT_FAILED, "perceive.nsfw: did not decode: x"),
        uid_of(3): (Reason.LOW_AESTHETIC, "aesthetic 2 is below min_aesthetic 5"),
        uid_of(5): (Reason.POISON, f"perceive.nsfw: {POISON_DETAIL}"),
    }
    assert pq.read_table(outputs["00000"].files["order"])["uid"].to_pylist() == [uid_of(0), uid_of(4)]
    assert set(outputs["00000"].metrics.values()) == {0.0}


def test_a_score_that_no_limit_asks_for_stops_nothing_and_is_carried_on(tmp_path):
    rows = [row(0), row(1) | {"watermark_score": "failed"}, row(2) | {"watermark_score": 0.75, "nsfw_score": 1.0}]
    chosen, drops, _ = run(tmp_path, rows, experts=("watermark", "not_ours"))
    assert not drops
    assert [[r[column] for column in COLUMNS] for r in chosen] == [[None] * 3, [None] * 3, [None, None, 0.75]]


def test_measured_aesthetic_ranks_and_rows_without_it_come_last(tmp_path):
    scores = [4.0, "failed", 6.0, 5.0]
    rows = [row(i, aesthetic=float(i)) | {"aesthetic_score": score} for i, score in enumerate(scores)]
    ranks = {}
    for direction in ("descending", "ascending"):
        config = {"rank_by": "measured_aesthetic", "direction": direction, "experts": ("aesthetic",)}
        ranks[direction] = [r["rank"] for r in run(tmp_path, rows, **config)[0]]
    assert ranks == {"descending": [2, 3, 0, 1], "ascending": [0, 3, 2, 1]}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"max_nsfw": 0.5},
            r"select\.max_nsfw is 0\.5, .* perceive\.nsfw measures, which is off.*`perceive: {nsfw: {}}`",
        ),
        ({"max_watermark": 0.0}, r"perceive\.watermark measures"),
        ({"min_aesthetic": 4.5}, r"perceive\.aesthetic measures"),
        ({"rank_by": "measured_aesthetic"}, r"select\.rank_by is measured_aesthetic, .*perceive\.aesthetic"),
    ],
)
def test_a_limit_needs_its_expert(config, words):
    with pytest.raises(RequestError, match=words):
        SelectStage(SelectSection(**config), ("tags",)).check()
    SelectStage(SelectSection(**config), EXPERTS).check()


SCORE = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0, 4.9, 5.0, "failed"])


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.25, 0.5, 0.75]), SCORE, SCORE, SCORE), max_size=30),
    st.none() | st.sampled_from([0.1, 0.3, 1.0]),
    st.none() | st.sampled_from([0.0, 0.7]),
    st.none() | st.sampled_from([0.25, 5.0]),
    st.integers(1, 4),
    st.none() | st.integers(1, 3),
)
def test_limits_are_those_of_a_loop_over_the_rows(
    tmp_path_factory, fields, max_nsfw, max_watermark, min_aesthetic, per_cluster, per_domain
):
    tmp_path = tmp_path_factory.mktemp("select")
    rows = [
        row(i, cluster, cosine, host=f"h{i % 3}.example") | dict(zip(COLUMNS, scores, strict=True))
        for i, (cluster, cosine, *scores) in enumerate(fields)
    ]
    limits = {"max_nsfw": max_nsfw, "max_watermark": max_watermark, "min_aesthetic": min_aesthetic}
    sizes = {"per_cluster": per_cluster, "per_domain": per_domain}
    chosen, drops, _ = run(tmp_path, rows, 7, experts=EXPERTS, **limits, **sizes)
    assert len(chosen) + len(drops) == len(rows)

    def stops(r):
        for column, reason, limit, side in (
            ("nsfw_score", Reason.NSFW, max_nsfw, 1),
            ("watermark_score", Reason.WATERMARKED, max_watermark, 1),
            ("aesthetic_score", Reason.LOW_AESTHETIC, min_aesthetic, -1),
        ):
            if limit is not None and r[column] == "failed":
                return Reason.EXPERT_FAILED
            if limit is not None and side * r[column] > side * limit:
                return reason
        return None

    expected = {r["uid"]: stops(r) for r in rows}
    found = {d.uid: d.reason for d in drops if d.reason != Reason.NOT_SELECTED}
    assert found == {uid: reason for uid, reason in expected.items() if reason is not None}
    # what is left is treated as if the others had never been there
    left = [r for r in rows if expected[r["uid"]] is None]
    again, _, _ = run(tmp_path, left, 7, experts=EXPERTS, **sizes)
    assert {(r["uid"], r["rank"]) for r in chosen} == {(r["uid"], r["rank"]) for r in again}
    for r in chosen:
        source = next(s for s in rows if s["uid"] == r["uid"])
        for column in COLUMNS:
            assert r[column] == (None if source[column] == "failed" else pytest.approx(source[column]))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.25, 0.5, 0.75])), max_size=40),
    st.integers(1, 5),
    st.integers(1, 7),
    st.none() | st.integers(1, 20),
    st.randoms(),
)
def test_quota_shards_and_layout(tmp_path_factory, fields, per_cluster, shard_rows, limit, random):
    tmp_path = tmp_path_factory.mktemp("select")
    rows = [row(i, *f) for i, f in enumerate(fields)]
    config = {"per_cluster": per_cluster, "shard_rows": shard_rows, "limit": limit}
    chosen, _, outputs = run(tmp_path, rows, 6, **config)
    sizes = [o.rows.num_rows for o in outputs.values()]
    assert list(outputs) == [f"{i:05d}" for i in range(len(outputs))]
    assert sizes[:-1] == [shard_rows] * (len(sizes) - 1)
    whole = sum(min(per_cluster, sum(f[0] == c for f in fields)) for c in range(5))
    assert len(chosen) == min(whole, limit or whole)
    # images are read forward
    assert [r["image_offset"] for r in chosen] == sorted(r["image_offset"] for r in chosen)
    for r in chosen:
        better = [
            o
            for o in rows
            if o["cluster"] == r["cluster"] and (-o["centroid_cosine"], o["uid"]) < (-r["centroid_cosine"], r["uid"])
        ]
        assert len(better) == r["rank"] < per_cluster
    moved = list(rows)
    random.shuffle(moved)
    again, _, _ = run(tmp_path, moved, 11, **config)
    assert {(r["uid"], r["rank"]) for r in again} == {(r["uid"], r["rank"]) for r in chosen}
