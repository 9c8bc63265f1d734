"""The perceive stage over real files: order, isolation of bad rows, memory, identity."""

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from experts.depth import DepthSection
from experts.open_set import OpenSetSection
from experts.registry import EXPERTS
from experts.tags import TagsSection
from schemas.tables import check_table
from stages.base import ShardInput
from stages.perceive import PerceiveSection, PerceiveStage
from tests.photographs import awkward_files, encoded, photograph

POISON_SIZE = (13, 13)


class Bytes:
    """An image source over one string of bytes."""

    def __init__(self, files):
        self.joined = b"".join(files)

    def read(self, shard, offset, size):
        assert shard == "00007"
        return self.joined[offset : offset + size]


def shard_of(files, tmp_path, **tables):
    offsets = [sum(map(len, files[:i])) for i in range(len(files))]
    chosen = pa.table(
        {
            "uid": [f"{i:032x}" for i in range(len(files))],
            "image_shard": ["00007"] * len(files),
            "image_offset": pa.array(offsets, pa.int64()),
            "image_bytes": pa.array([len(data) for data in files], pa.int64()),
        }
    )
    return ShardInput("00000", {"select": chosen} | tables, Bytes(files), tmp_path)


@pytest.fixture
def stage(small_weights):
    stages = []

    def build(expert, **settings):
        sections = {
            "tags": (TagsSection, "clip"),
            "depth": (DepthSection, "depth"),
            "open_set": (OpenSetSection, "owlv2"),
        }
        section, family = sections[expert]
        stages.append(PerceiveStage(expert, section(model=str(small_weights[family]), **settings)))
        stages[-1].open()
        return stages[-1]

    yield build
    for one in stages:
        one.close()


def test_every_row_comes_out_in_order_and_twice_the_same(stage, tmp_path):
    files = list(awkward_files().values())
    shard = shard_of(files, tmp_path)
    tags = stage("tags", batch_size=3)
    first, second = tags.process(shard), tags.process(shard)
    check_table(first.rows, tags.schema, tags.name)
    assert first.rows.column("uid").to_pylist() == shard.tables["select"].column("uid").to_pylist()
    assert first.rows.column("error").null_count == len(files)
    assert first.rows.equals(second.rows)
    assert first.drops == []
    assert first.metrics["images"] == len(files)
    alone = stage("tags", batch_size=1).process(shard).rows.to_pylist()
    for one, batched in zip(alone, first.rows.to_pylist(), strict=True):
        assert [t["tag"] for t in one["tags"]] == [t["tag"] for t in batched["tags"]]


def test_an_empty_shard_gives_an_empty_table(stage, tmp_path):
    assert stage("tags").process(shard_of([], tmp_path)).rows.num_rows == 0


def test_a_file_that_does_not_decode_costs_its_own_row(stage, tmp_path):
    good = encoded(photograph("coffee"), "JPEG")
    files = [good, b"<html>404</html>", good[: len(good) // 2], good]
    out = stage("depth", batch_size=4).process(shard_of(files, tmp_path))
    rows = out.rows.to_pylist()
    assert [row["error"] is None for row in rows] == [True, False, False, True]
    assert rows[1]["disparity_png"] is None and "did not decode" in rows[1]["error"]
    assert rows[0] | {"uid": None} == rows[3] | {"uid": None}
    assert out.metrics["errors"] == 2


def failing(stage, fails):
    """Put a fault in front of the real expert; `fails(images)` is the error to raise or None."""
    look, sizes = stage._expert.look, []

    def faulty(images, context):
        sizes.append(len(images))
        if error := fails(images):
            raise error
        return look(images, context)

    stage._expert.look = faulty
    return sizes


def test_an_image_that_the_model_refuses_costs_its_own_row(stage, tmp_path):
    files = [encoded(photograph("coffee").resize((64 + i, 48))) for i in range(7)]
    clean = stage("tags", batch_size=1).process(shard_of(files, tmp_path)).rows.to_pylist()
    files[4] = encoded(photograph("chelsea").resize(POISON_SIZE))
    tags = stage("tags", batch_size=7)
    failing(tags, lambda images: ValueError("bad\nshape") if any(i.size == POISON_SIZE for i in images) else None)
    rows = tags.process(shard_of(files, tmp_path)).rows.to_pylist()
    assert rows[4] == {"uid": f"{4:032x}", "tags": [], "error": "the model failed: ValueError: bad"}
    for i in (0, 1, 2, 3, 5, 6):
        assert rows[i]["error"] is None
        assert [t["tag"] for t in rows[i]["tags"]] == [t["tag"] for t in clean[i]["tags"]]


def test_running_out_of_memory_halves_the_batch_from_then_on(stage, tmp_path):
    files = [encoded(photograph("coffee").resize((64, 48)))] * 24
    tags = stage("tags", batch_size=8)
    sizes = failing(tags, lambda images: torch.OutOfMemoryError("CUDA out of memory") if len(images) > 2 else None)
    rows = tags.process(shard_of(files, tmp_path)).rows
    assert rows.column("error").null_count == 24
    assert sizes[0] == 8 and sizes.count(8) <= 2  # one batch was already being decoded
    assert max(sizes[-4:]) == 2


@pytest.mark.parametrize("error", [MemoryError("host"), torch.OutOfMemoryError("CUDA out of memory")])
def test_no_memory_for_one_image_is_the_machines_failure(stage, tmp_path, error):
    tags = stage("tags", batch_size=2)
    failing(tags, lambda images: error)
    with pytest.raises(type(error)):
        tags.process(shard_of([encoded(photograph("coffee"))] * 2, tmp_path))


def test_poison_rows_get_an_empty_prior_and_the_reason(stage, tmp_path):
    shard = shard_of([encoded(photograph("coffee"))] * 2, tmp_path)
    depth = PerceiveStage("depth", DepthSection())
    out = depth.quarantine(shard.tables["select"])
    check_table(out.rows, depth.schema, depth.name)
    assert [row["disparity_png"] for row in out.rows.to_pylist()] == [None, None]
    assert all("poison" in row["error"] for row in out.rows.to_pylist())


def test_an_expert_that_fails_on_every_image_fails_the_shard(stage, tmp_path):
    tags = stage("tags", batch_size=4)
    failing(tags, lambda images: RuntimeError("weights of the wrong shape"))
    with pytest.raises(RuntimeError, match=r"perceive\.tags failed on all 8 images.*wrong shape"):
        tags.process(shard_of([encoded(photograph("coffee").resize((64, 48)))] * 8, tmp_path))


def test_a_read_that_fails_is_the_stores_failure(stage, tmp_path):
    shard = shard_of([encoded(photograph("coffee"))], tmp_path)
    shard.images.read = lambda *_: (_ for _ in ()).throw(OSError("the object is gone"))
    with pytest.raises(OSError, match="the object is gone"):
        stage("tags").process(shard)


def test_open_set_asks_each_image_for_its_own_tags_in_any_order(stage, tmp_path):
    files = [encoded(photograph(name).resize((200, 150))) for name in ("coffee", "chelsea", "rocket")]
    labels = ["cup", "cat", "rocket"]
    uids = [f"{i:032x}" for i in range(3)]
    rows = [
        {"uid": uid, "tags": [{"tag": t, "score": 1.0}], "error": None} for uid, t in zip(uids, labels, strict=True)
    ]
    tags = pa.Table.from_pylist(rows[::-1], schema=EXPERTS["tags"].schema)
    detector = stage("open_set", threshold=0.0)
    assert detector.also_reads == ("perceive.tags",)
    out = detector.process(shard_of(files, tmp_path, **{"perceive.tags": tags})).rows.to_pylist()
    assert [{box["label"] for box in row["boxes"]} for row in out] == [{label} for label in labels]


def test_stage_names_identity_and_cheap_construction(small_weights):
    section = PerceiveSection.model_validate({"tags": {"model": str(small_weights["clip"])}, "open_set": None})
    assert list(section.experts()) == ["tags", "closed_set", "ocr"]
    built = [PerceiveStage(name, config) for name, config in section.experts().items()]
    assert [one.name for one in built] == ["perceive.tags", "perceive.closed_set", "perceive.ocr"]
    assert built[0].models()["expert"] == "tags v1"
    assert built[0].models()["model"].startswith("folder:")
    assert all(one.rows_from == "select" for one in built)


def test_an_expert_without_the_one_it_needs_is_refused():
    with pytest.raises(ValidationError, match="open_set takes the output of tags"):
        PerceiveSection.model_validate({"tags": None})


def test_batch_size_decides_nothing():
    assert TagsSection(batch_size=1).decides() == TagsSection(batch_size=64).decides()
