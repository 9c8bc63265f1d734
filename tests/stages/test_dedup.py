import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.ledger import Reason
from schemas.tables import CLUSTER, DOWNLOAD, DUPLICATES, check_table
from stages.curate.vectors import Vectors
from stages.dedup import DedupSection, DedupStage
from tests.fakes.memory_gather import MemoryGather, run_gather
from tests.fakes.packaged import uid_of

FAR = 0x5555_5555_5555_5555


def row(i, angle=0.0, cluster=0, cosine=0.5, sha=None, phash=None, side=500, aesthetic=None):
    """One image: its vector lies `angle` degrees along a circle; hashes are far from every other's unless given."""
    if phash is None:
        phash = int(hashlib.md5(f"hash {i}".encode()).hexdigest()[:16], 16)
    return {
        "uid": uid_of(i),
        "url": f"http://a.example/{i}",
        "vector": [np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))],
        "cluster": cluster,
        "centroid_cosine": cosine,
        "sha256": hashlib.sha256(str(i if sha is None else sha).encode()).hexdigest(),
        "phash": phash,
        "format": "jpeg",
        "width": side,
        "height": side,
        "orientation": 1,
        "image_offset": 0,
        "image_bytes": 1,
        "aesthetic": aesthetic,
    }


def gather(tmp_path, rows, size=1000):
    stages = {"cluster": {}, "embed": {}, "download": {}, "ingest": {}}
    for start in range(0, len(rows), size):
        part, shard = rows[start : start + size], f"{start // size:05d}"
        vectors = pa.FixedSizeListArray.from_arrays(np.array([r["vector"] for r in part], np.float16).reshape(-1), 2)
        stages["cluster"][shard] = pa.Table.from_pylist(part, schema=CLUSTER)
        stages["embed"][shard] = pa.table({"uid": [r["uid"] for r in part], "embedding": vectors})
        # rows that later stages dropped are still in the tables of earlier ones, which may be in any order
        earlier = [row(f"gone {shard}"), *reversed(part)]
        stages["download"][shard] = pa.Table.from_pylist(earlier, schema=DOWNLOAD)
        stages["ingest"][shard] = pa.table(
            {"uid": [r["uid"] for r in earlier], "aesthetic": pa.array([r["aesthetic"] for r in earlier], pa.float32())}
        )
    return MemoryGather(Path(tempfile.mkdtemp(dir=tmp_path)), stages)


def run(tmp_path, rows, size=1000, **config):
    """Survivors' uids, drops by uid, duplicates by uid."""
    outputs = run_gather(DedupStage(DedupSection(**{"border": "none"} | config)), gather(tmp_path, rows, size))
    duplicates = pa.concat_tables([pq.read_table(o.files["duplicates"]) for o in outputs.values()])
    check_table(duplicates, DUPLICATES, "duplicates")
    return (
        [uid for o in outputs.values() for uid in o.rows.column("uid").to_pylist()],
        {d.uid: d for o in outputs.values() for d in o.drops},
        {d["uid"]: d for d in duplicates.to_pylist()},
    )


def test_the_three_kinds_in_their_order(tmp_path):
    rows = [
        row(0, 0, cosine=0.1, phash=FAR),
        row(1, 0, cosine=0.2, phash=FAR, sha=0),  # same bytes
        row(2, 180, cosine=0.3, phash=FAR ^ 3, cluster=7),  # two bits apart, elsewhere in every other respect
        row(3, 20, cosine=0.4),  # cosine 0.94
        row(4, 20, cosine=0.5, cluster=7),  # the same, in another cluster
    ]
    kept, drops, duplicates = run(tmp_path, rows, epsilon=0.1)
    assert kept == [uid_of(0), uid_of(4)]
    assert [drops[uid_of(i)].reason for i in (1, 2, 3)] == [
        Reason.DUPLICATE_EXACT,
        Reason.DUPLICATE_PERCEPTUAL,
        Reason.DUPLICATE_SEMANTIC,
    ]
    assert drops[uid_of(1)].detail == f"of {uid_of(0)}"
    assert drops[uid_of(2)].detail == f"of {uid_of(0)}, 2 bits apart"
    assert drops[uid_of(3)].detail == f"of {uid_of(0)}, cosine 0.94"
    assert drops[uid_of(3)].url == "http://a.example/3"
    assert {d["kind"]: (d["cosine"], d["hamming"]) for d in duplicates.values()} == {
        "exact": (None, None),
        "perceptual": (None, 2),
        "semantic": (pytest.approx(np.cos(np.deg2rad(20)), abs=1e-3), None),
    }


def test_each_search_can_be_left_out(tmp_path):
    rows = [row(0, 0, phash=FAR), row(1, 90, phash=FAR, sha=0), row(2, 180, phash=FAR ^ 1), row(3, 181)]
    off = {"exact": False, "hamming": None, "epsilon": None}
    assert len(run(tmp_path, rows, **off)[0]) == 4
    assert len(run(tmp_path, rows, **off | {"exact": True})[0]) == 3
    assert len(run(tmp_path, rows, **off | {"hamming": 0})[0]) == 3
    assert len(run(tmp_path, rows, **off | {"hamming": 1})[0]) == 2
    assert len(run(tmp_path, rows, **off | {"epsilon": 0.01})[0]) == 3


@pytest.mark.parametrize(("keep", "stays"), [("hard", 2), ("easy", 1), ("resolution", 0), ("aesthetic", 3)])
def test_which_row_stays(tmp_path, keep, stays):
    rows = [row(0, cosine=0.5, side=900), row(1, cosine=0.9), row(2, cosine=0.1, aesthetic=5), row(3, aesthetic=6)]
    assert run(tmp_path, rows, keep=keep)[0] == [uid_of(stays)]


def test_random_keep_follows_the_seed(tmp_path):
    rows = [row(i) for i in range(10)]
    stays = [run(tmp_path, rows, keep="random", seed=seed)[0][0] for seed in range(12)]
    assert run(tmp_path, rows, keep="random", seed=3)[0] == [stays[3]]
    assert len(set(stays)) > 3


def test_a_chain_names_the_suppressor_and_who_stays(tmp_path):
    rows = [row(i, 10.0 * i, cosine=0.1 * i) for i in range(3)]
    epsilon = float(1 - np.cos(np.deg2rad(15)))
    kept, drops, duplicates = run(tmp_path, rows, epsilon=epsilon, rule="semdedup")
    assert kept == [uid_of(0)]
    assert duplicates[uid_of(2)]["kept_uid"] == uid_of(1)
    assert duplicates[uid_of(2)]["group"] == uid_of(0)
    assert drops[uid_of(2)].detail == f"of {uid_of(1)}, cosine 0.98; {uid_of(0)} stays"
    kept, _, _ = run(tmp_path, rows, epsilon=epsilon, rule="greedy")
    assert kept == [uid_of(0), uid_of(2)]
    kept, drops, _ = run(tmp_path, rows, epsilon=epsilon, rule="components")
    assert kept == [uid_of(0)]
    assert drops[uid_of(2)].detail == f"of {uid_of(0)}, cosine 0.94"


ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 5.0, 12.0, 90.0, 93.0]),
        st.integers(0, 2),
        st.sampled_from([0.25, 0.5]),
        st.integers(0, 30),
        st.sampled_from([None, FAR, FAR ^ 1, FAR ^ 0b110]),
        st.sampled_from([400, 500]),
    ),
    min_size=1,
    max_size=30,
).map(lambda fields: [row(i, *f) for i, f in enumerate(fields)])


@settings(max_examples=25)
@given(
    ROWS,
    st.randoms(),
    st.sampled_from(["hard", "easy", "random", "resolution"]),
    st.sampled_from(["semdedup", "greedy", "components"]),
)
def test_shards_and_order_do_not_matter_and_groups_end_at_survivors(tmp_path_factory, rows, random, keep, rule):
    tmp_path = tmp_path_factory.mktemp("dedup")
    kept, drops, duplicates = run(tmp_path, rows, 7, keep=keep, rule=rule, epsilon=0.01)
    moved = list(rows)
    random.shuffle(moved)
    kept_moved, drops_moved, duplicates_moved = run(tmp_path, moved, 4, keep=keep, rule=rule, epsilon=0.01)
    assert sorted(kept_moved) == sorted(kept)
    assert drops_moved == drops
    assert duplicates_moved == duplicates
    assert drops.keys() == duplicates.keys()
    for duplicate in duplicates.values():
        assert duplicate["group"] in kept
        suppressor = duplicate["kept_uid"]
        assert suppressor in kept or duplicates[suppressor]["group"] == duplicate["group"]
        if rule == "greedy" and duplicate["kind"] == "semantic":
            assert suppressor in kept


@pytest.mark.parametrize("centring", [False, True])
def test_semantic_agrees_with_the_whole_matrix(tmp_path, centring):
    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 140, 300)
    rows = [
        row(i, a, cluster=i % 3, cosine=float(c)) for i, (a, c) in enumerate(zip(angles, rng.random(300), strict=True))
    ]
    kept, _, _ = run(tmp_path, rows, 40, hamming=None, epsilon=0.0005, rule="semdedup", centring=centring)
    stored = np.array([r["vector"] for r in rows], np.float16)
    unit = Vectors.of(stored).unit(slice(None))
    unit = Vectors.of(stored, unit.mean(0) if centring else None).unit(slice(None))
    want = []
    for cluster in range(3):
        members = sorted(range(cluster, 300, 3), key=lambda i: np.float32(rows[i]["centroid_cosine"]))
        upper = np.triu(unit[members] @ unit[members].T, 1)
        want += [uid_of(i) for i, most in zip(members, upper.max(axis=0), strict=True) if not most > 1 - 0.0005]
    assert 10 < len(kept) < 290
    assert sorted(kept) == sorted(want)


def test_nothing_in_nothing_out(tmp_path):
    assert run_gather(DedupStage(DedupSection()), gather(tmp_path, [])) == {}
