"""Embeddings that were made before: how they are found, joined, and told apart from others."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import stages.embeddings.index
from schemas.errors import RequestError, SetupError
from schemas.ledger import Reason
from schemas.tables import DOWNLOAD
from stages.base import ShardInput
from stages.embed import EmbedSection, EmbedStage
from stages.embeddings.index import find, key_hashes, write_index
from tests.photographs import encoded, photograph

WIDTH = 8
UIDS = [f"{i:032x}" for i in range(10, 16)]
URLS = [f"http://a/{i}" for i in range(6)]
VECTORS = np.random.default_rng(0).standard_normal((6, WIDTH)).astype(np.float32)
UNIT = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float16)


def shard(tmp_path, content=b"") -> ShardInput:
    filler = {f.name: 0 if pa.types.is_integer(f.type) else "" for f in DOWNLOAD}
    rows = [filler | {"uid": u, "url": v, "image_bytes": len(content)} for u, v in zip(UIDS, URLS, strict=True)]
    images = SimpleNamespace(read=lambda shard, offset, size: content)
    return ShardInput("00000", {"download": pa.Table.from_pylist(rows, schema=DOWNLOAD)}, images, tmp_path)


def parquet(path, vectors=VECTORS, kind=None, row_group_size=2, **columns):
    kind = kind or pa.list_(pa.float32())
    flat = pa.array([None if v is None else np.asarray(v, kind.value_type.to_pandas_dtype()) for v in vectors], kind)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns | {"embedding": flat}), path, row_group_size=row_group_size)
    return str(path)


def pair(folder, number="0", vectors=VECTORS, metadata="metadata", **columns):
    """clip-retrieval's layout."""
    (folder / "img_emb").mkdir(parents=True, exist_ok=True)
    (folder / metadata).mkdir(exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors)
    pq.write_table(pa.table(columns), folder / metadata / f"metadata_{number}.parquet")
    return str(folder)


def stage(model="./none", **precomputed):
    return EmbedStage(EmbedSection(model=str(model), precision="float32", precomputed=precomputed))


def output(given, tmp_path, content=b""):
    given.check()
    try:
        given.open()
        return given.process(shard(tmp_path, content))
    finally:
        given.close()


def rows(out):
    column = out.rows.column("embedding").combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return dict(zip(out.rows.column("uid").to_pylist(), values, strict=True))


def layouts(tmp_path):
    """The rows in an order of their own, uids in capitals, among others."""
    order = [4, 0, 5, 2, 1, 3]
    uids, urls = [UIDS[i].upper() for i in order], [f" {URLS[i]} " for i in order]
    shuffled = VECTORS[order]
    sized = pa.list_(pa.float16(), WIDTH)
    folder = tmp_path / "pairs"
    pair(folder, "0000", shuffled[:2].astype(np.float16), key=["0", "1"], url=urls[:2])
    pair(folder, "0001", shuffled[2:].astype(np.float64), key=["2", "3", "4", "5"], url=urls[2:])
    pair(tmp_path / "named", "7", shuffled, metadata="elsewhere", UID=uids)
    mixed = parquet(tmp_path / "a" / "1.parquet", [*shuffled, [9] * WIDTH], uid=[*uids, "f" * 32])
    parquet(tmp_path / "c" / "1.parquet", shuffled[:3], who=uids[:3])
    parquet(tmp_path / "c" / "2.parquet", shuffled[3:], who=uids[3:])
    return {
        "parquet by uid": {"files": [mixed]},
        "fp16 of fixed size by url": {
            "files": [parquet(tmp_path / "b" / "1.parquet", shuffled, sized, 10, URL=urls)],
            "key": "url",
        },
        "named columns, two files, a glob": {"files": [str(tmp_path / "c" / "*.parquet")], "columns": {"uid": "Who"}},
        "clip-retrieval by url": {"files": [str(folder)], "key": "url"},
        "clip-retrieval, metadata named": {
            "files": [str(tmp_path / "named" / "img_emb" / "img_emb_7.npy")],
            "metadata": str(tmp_path / "named" / "elsewhere"),
        },
    }


def test_every_layout_gives_the_same_unit_vectors(tmp_path):
    for what, precomputed in layouts(tmp_path).items():
        out = output(stage(**precomputed, missing="drop"), tmp_path)
        assert out.drops == [] and out.metrics == {"precomputed": 6.0}, what
        for uid, unit in zip(UIDS, UNIT, strict=True):
            np.testing.assert_allclose(rows(out)[uid], unit, atol=1e-3, err_msg=what)


def test_rows_without_a_direction_are_missing_and_stop(tmp_path):
    bad = [VECTORS[0], np.zeros(WIDTH), np.full(WIDTH, np.nan), None, VECTORS[0][:3], np.full(WIDTH, np.inf)]
    given = stage(files=[parquet(tmp_path / "a.parquet", bad, uid=UIDS)], missing="drop")
    out = output(given, tmp_path)
    assert list(rows(out)) == UIDS[:1]
    assert [(d.uid, d.url, d.reason) for d in out.drops] == [
        (u, v, Reason.NO_EMBEDDING) for u, v in zip(UIDS[1:], URLS[1:], strict=True)
    ]
    assert {d.detail for d in out.drops} == {
        "its vector in embed.precomputed is zero, NaN, infinite or of another width"
    }


def test_a_key_that_is_not_there_is_told_from_a_vector_that_is_no_use(tmp_path):
    out = output(stage(files=[parquet(tmp_path / "a.parquet", VECTORS[:5], uid=UIDS[:5])], missing="drop"), tmp_path)
    assert [(d.uid, d.detail) for d in out.drops] == [(UIDS[5], "its key is not in embed.precomputed")]


def test_the_first_of_two_rows_with_one_key_counts(tmp_path):
    twice = parquet(tmp_path / "a.parquet", [VECTORS[0], -VECTORS[0], VECTORS[1]], uid=[UIDS[0], UIDS[0], UIDS[1]])
    later = parquet(tmp_path / "b.parquet", -VECTORS, uid=UIDS)
    out = rows(output(stage(files=[twice, later], missing="drop"), tmp_path))
    for uid, unit in zip(UIDS, [UNIT[0], UNIT[1], *-UNIT[2:]], strict=True):
        np.testing.assert_array_equal(out[uid], unit)


def test_what_is_missing_is_computed_by_the_model(tmp_path, small_weights):
    content = encoded(photograph("coffee"), "JPEG")
    plain = EmbedStage(EmbedSection(model=str(small_weights["clip"]), precision="float32"))
    computed = rows(output(plain, tmp_path, content))[UIDS[0]]
    vectors = np.zeros((2, len(computed)), np.float32)
    vectors[:, :2] = (3, 4), (0, 0)
    given = stage(small_weights["clip"], files=[parquet(tmp_path / "a.parquet", vectors, uid=UIDS[1:3])])
    out = output(given, tmp_path, content)
    assert list(rows(out)) == UIDS
    looked_up = np.zeros(len(computed), np.float16)
    looked_up[:2] = 0.6, 0.8
    for uid, row in rows(out).items():
        np.testing.assert_array_equal(row, looked_up if uid == UIDS[1] else computed)
    assert (out.metrics["precomputed"], out.metrics["computed"]) == (1, 5)


def test_vectors_of_another_model_cannot_be_mixed_in(tmp_path, small_weights):
    given = stage(small_weights["clip"], files=[parquet(tmp_path / "a.parquet", uid=UIDS)])
    with pytest.raises(SetupError, match=r"have 8 numbers, those of .* 256"):
        output(given, tmp_path)


def test_content_decides_not_the_place(tmp_path):
    one = parquet(tmp_path / "a" / "x.parquet", uid=UIDS)
    same = parquet(tmp_path / "b" / "y.parquet", uid=UIDS)
    other = parquet(tmp_path / "c" / "x.parquet", -VECTORS, uid=UIDS)
    two, two_moved = pair(tmp_path / "d", url=URLS), pair(tmp_path / "e", url=URLS)
    other_keys = pair(tmp_path / "f", url=URLS[::-1])

    def identity(*files, **more):
        return stage(files=list(files), missing="drop", **more).models()

    assert identity(one) == identity(same) and identity(one).keys() == {"precomputed"}
    assert len({identity(*files)["precomputed"] for files in ([one], [other], [one, other], [other, one])}) == 4
    assert identity(two, key="url") == identity(two_moved, key="url") != identity(other_keys, key="url")
    assert stage("ViT-B-32", files=[one]).models().keys() == {"model", "precomputed"}


def test_what_decides_and_what_does_not():
    def decides(**precomputed):
        return EmbedSection(precomputed={"files": ["a"]} | precomputed).decides()

    assert decides() == decides(files=["b"], index="c", metadata="d")
    assert (
        len({str(decides(**more)) for more in ({}, {"key": "url"}, {"missing": "drop"}, {"columns": {"uid": "x"}})})
        == 4
    )


def test_a_kept_index_is_used_again(tmp_path, monkeypatch):
    index = tmp_path / "index"
    given = {"files": [parquet(tmp_path / "a.parquet", uid=UIDS)], "missing": "drop", "index": str(index)}
    first = output(stage(**given), tmp_path)
    assert [path.suffix for path in index.iterdir()] == [".npy"]
    monkeypatch.setattr("stages.embeddings.precomputed.write_index", lambda *_: pytest.fail("built again"))
    assert output(stage(**given), tmp_path).rows.equals(first.rows)


@pytest.mark.parametrize("bucket_rows", [1 << 22, 100])
def test_the_index_finds_every_key(tmp_path, monkeypatch, bucket_rows):
    monkeypatch.setattr(stages.embeddings.index, "_BUCKET_ROWS", bucket_rows)
    keys = [f"key {i % 900}" if i % 7 else None for i in range(1000)]
    write_index(tmp_path / "i.npy", (keys[i : i + 64] for i in range(0, 1000, 64)), 1000)
    index = np.load(tmp_path / "i.npy", mmap_mode="r")
    wanted = [f"key {i}" for i in range(950)]
    first = [keys.index(key) if key in keys else -1 for key in wanted]
    assert find(index, key_hashes(wanted)).tolist() == first
    assert [p.name for p in tmp_path.iterdir()] == ["i.npy"]


def test_an_index_of_nothing_finds_nothing(tmp_path):
    write_index(tmp_path / "i.npy", [[None]], 1)
    assert find(np.load(tmp_path / "i.npy"), key_hashes(["a"])).tolist() == [-1]


def test_keys_that_share_half_a_hash_are_told_apart():
    index = np.array([[5, 5, 5, 9], [1, 2, 3, 0], [40, 30, 20, 10]], np.uint64)
    hashes = np.array([[5, 3], [5, 1], [5, 4], [9, 0], [9, 1], [4, 0]], np.uint64)
    assert find(index, hashes).tolist() == [20, 40, -1, 10, -1, -1]


def wrong(tmp_path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    (tmp_path / "empty").mkdir()
    alone = tmp_path / "alone"
    alone.mkdir()
    np.save(alone / "img_emb_0.npy", VECTORS)
    narrow = parquet(tmp_path / "narrow.parquet", VECTORS[:, :4], uid=UIDS)
    good = parquet(tmp_path / "good.parquet", uid=UIDS)
    numbers = parquet(tmp_path / "numbers.parquet", uid=list(range(6)))
    text = tmp_path / "text.parquet"
    pq.write_table(pa.table({"uid": UIDS, "embedding": ["a"] * 6}), text)
    (tmp_path / "x.csv").touch()
    return {
        "there is no .*none": {"files": [str(tmp_path / "none")]},
        "holds neither": {"files": [str(tmp_path / "empty")]},
        "neither .npy nor .parquet": {"files": [str(tmp_path / "x.csv")]},
        "cannot be read as parquet": {"files": [str(broken)]},
        "no column url. It has: uid, embedding": {"files": [good], "key": "url"},
        "no column vec": {"files": [good], "columns": {"embedding": "vec"}},
        "is string, not a list of floats": {"files": [str(text)]},
        "have 4 numbers, those of .*good.* 8": {"files": [good, narrow]},
        "not 128-bit hex .the first is 0.*key: url": {"files": [numbers]},
        "rows of .* have no keys": {"files": [str(alone)]},
        "has 5 rows and .* has 6": {"files": [pair(tmp_path / "short", url=URLS[:5])], "key": "url"},
    }


def test_what_cannot_be_is_said_before_anything_starts(tmp_path):
    for says, precomputed in wrong(tmp_path).items():
        with pytest.raises(RequestError, match=says):
            stage(**precomputed, missing="drop").check()
    with pytest.raises(ValidationError, match="not a canonical column"):
        stage(files=["a"], columns={"caption": "x"})
