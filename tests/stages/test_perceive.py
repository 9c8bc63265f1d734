"""The perceive stage over real files: order, isolation of bad rows, memory, identity."""

from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from experts.base import Expert, ExpertSection
from experts.depth import DepthSection
from experts.open_set import OpenSetSection
from experts.registry import EXPERTS
from experts.taggers.open_clip import DEFAULT_LABELS
from experts.tags import TagsSection
from schemas.tables import check_table
from stages.base import ShardInput
from stages.perceive import ExpertsSection, PerceiveSection, PerceiveStage
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
        # All labels take a second to embed.
        few = {"labels": tuple(DEFAULT_LABELS.read_text().split("\n")[:40])} if expert == "tags" else {}
        stages.append(PerceiveStage(expert, section(model=str(small_weights[family]), **few, **settings)))
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
    """Put a fault in front of the real expert; `fails(pictures)` is the error to raise or None."""
    look, sizes = stage._expert.look, []

    def faulty(pictures, contexts):
        sizes.append(len(pictures))
        if error := fails(pictures):
            raise error
        return look(pictures, contexts)

    stage._expert.look = faulty
    return sizes


def test_an_image_that_the_model_refuses_costs_its_own_row(stage, tmp_path):
    files = [encoded(photograph("coffee").resize((64 + i, 48))) for i in range(7)]
    clean = stage("tags", batch_size=1).process(shard_of(files, tmp_path)).rows.to_pylist()
    files[4] = encoded(photograph("chelsea").resize(POISON_SIZE))
    tags = stage("tags", batch_size=7)
    failing(tags, lambda pictures: ValueError("bad\nshape") if any(p.size == POISON_SIZE for p in pictures) else None)
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
        {"uid": uid, "tags": [{"tag": t, "score": 1.0, "threshold": None}], "error": None}
        for uid, t in zip(uids, labels, strict=True)
    ]
    tags = pa.Table.from_pylist(rows[::-1], schema=EXPERTS["tags"].schema)
    detector = stage("open_set", floor=0.0)
    assert detector.also_reads == ("perceive.tags",)
    out = detector.process(shard_of(files, tmp_path, **{"perceive.tags": tags})).rows.to_pylist()
    assert [{box["label"] for box in row["boxes"]} for row in out] == [{label} for label in labels]


def test_stage_names_identity_and_cheap_construction(small_weights):
    section = PerceiveSection.model_validate({"tags": {"model": str(small_weights["clip"])}, "open_set": None})
    assert list(section.experts()) == ["tags", "closed_set", "ocr"]
    built = [PerceiveStage(name, config) for name, config in section.experts().items()]
    assert [one.name for one in built] == ["perceive.tags", "perceive.closed_set", "perceive.ocr"]
    assert built[0].models()["expert"] == "tags v2"
    assert built[0].models()["model"].startswith("folder:")
    assert all(one.rows_from == "select" for one in built)


def test_an_expert_without_the_one_it_needs_is_refused():
    with pytest.raises(ValidationError, match="open_set takes the output of tags"):
        PerceiveSection.model_validate({"tags": None})


def test_an_expert_cannot_take_rows_that_another_one_never_saw(monkeypatch):
    monkeypatch.setattr(EXPERTS["open_set"], "rows_from", "dedup")
    with pytest.raises(
        ValidationError, match=r"open_set looks at the rows of dedup.*tags, which looks at those of select"
    ):
        PerceiveSection.model_validate({"tags": {}, "open_set": {}})


def test_batch_size_and_thresholds_decide_nothing_of_what_is_measured():
    assert TagsSection(batch_size=1).decides() == TagsSection(batch_size=64, threshold=0.3, top_k=3).decides()
    assert TagsSection(threshold=0.3).decisions() != TagsSection(threshold=0.4).decisions()
    assert TagsSection(keep=7).decides() != TagsSection().decides()


def test_a_threshold_below_what_is_stored_is_refused_and_says_what_to_do():
    with pytest.raises(ValidationError, match=r"threshold 0\.01 is below.*0\.05: set floor as low"):
        TagsSection(family="timm", model="x", threshold=0.01)


class Strips(Expert):
    """Looks at pictures of several shapes, and notes its batches."""

    name, version, schema, section, about = "strips", 1, EXPERTS["tags"].schema, ExpertSection, "strips"

    def open(self, device):
        self.batches = []

    def bucket(self, prepared):
        return prepared.size

    def look(self, prepared, contexts):
        self.batches.append([image.size for image in prepared])
        return [{"tags": [{"tag": str(image.size), "score": 1.0, "threshold": None}]} for image in prepared]

    def close(self):
        pass


def needing(name, *needs, rows_from="select"):
    """An expert class that takes others' rows."""
    return type(name.title(), (Strips,), {"name": name, "needs": needs, "rows_from": rows_from})


def test_an_expert_comes_after_those_it_needs(monkeypatch):
    for name, needs in {"alpha": ("omega",), "omega": ("tags",), "ring": ("ring",)}.items():
        monkeypatch.setitem(EXPERTS, name, needing(name, *needs))
    on = {name: ExpertSection() for name in ("alpha", "omega", "ring")} | {"tags": TagsSection()}
    section = SimpleNamespace(**(dict.fromkeys(EXPERTS) | on))
    assert list(ExpertsSection.experts(section)) == ["tags", "omega", "alpha", "ring"]


def strips(monkeypatch, batch):
    monkeypatch.setitem(EXPERTS, "strips", Strips)
    stage = PerceiveStage("strips", ExpertSection(batch_size=batch))
    stage.open()
    return stage


def test_batches_hold_one_shape_and_are_the_same_every_time(monkeypatch, tmp_path):
    sizes = [(32, 16 + 4 * (i % 5)) for i in range(47)] + [(16, 90)]
    shard = shard_of([encoded(photograph("coffee").resize(size)) for size in sizes], tmp_path)
    seen = []
    for _ in range(2):
        stage = strips(monkeypatch, 4)
        rows = stage.process(shard).rows.to_pylist()
        assert [row["tags"][0]["tag"] for row in rows] == [str(size) for size in sizes]
        seen.append(stage._expert.batches)
        stage.close()
    assert seen[0] == seen[1]
    assert all(len(set(batch)) == 1 and len(batch) <= 4 for batch in seen[0])
    assert sum(len(batch) == 4 for batch in seen[0]) >= 7


def test_pictures_wait_for_their_shape_no_longer_than_memory_allows(monkeypatch, tmp_path):
    sizes = [(16 + i, 16) for i in range(40)]
    stage = strips(monkeypatch, 2)
    stage.process(shard_of([encoded(photograph("coffee").resize(size)) for size in sizes], tmp_path))
    assert stage._expert.batches == [[size] for size in sizes]
    stage.close()


def test_a_picture_that_cannot_be_prepared_costs_its_own_row(monkeypatch, tmp_path):
    stage = strips(monkeypatch, 4)
    stage._expert.prepare = lambda image: 1 / 0 if image.size == POISON_SIZE else image
    files = [encoded(photograph("coffee").resize(size)) for size in ((20, 20), POISON_SIZE, (20, 20))]
    rows = stage.process(shard_of(files, tmp_path)).rows.to_pylist()
    assert [row["error"] for row in rows] == [
        None,
        "could not be prepared for the model: ZeroDivisionError: division by zero",
        None,
    ]
    stage.close()


def test_metrics_say_where_the_time_went(stage, tmp_path):
    metrics = stage("tags").process(shard_of([encoded(photograph("coffee"))] * 3, tmp_path)).metrics
    assert metrics["images"] == 3
    assert all(metrics[name] > 0 for name in ("expert_seconds", "prepare_seconds", "wait_seconds"))


def test_experts_over_what_dedup_left_read_the_images_of_their_download_shard(stage, tmp_path, monkeypatch):
    files = [encoded(photograph(name).resize((64, 48))) for name in ("coffee", "chelsea", "rocket")]
    selected = shard_of(files, tmp_path)
    expected = stage("tags").process(selected).rows.to_pylist()
    monkeypatch.setattr(EXPERTS["tags"], "rows_from", "dedup")
    early = stage("tags")
    assert (early.rows_from, early.also_reads) == ("dedup", ("download",))
    download = selected.tables["select"].drop_columns("image_shard")
    kept = pa.table({"uid": [f"{2:032x}", f"{0:032x}"]})
    given = ShardInput("00007", {"dedup": kept, "download": download}, selected.images, tmp_path)
    rows = early.process(given).rows.to_pylist()
    assert [row["tags"][0]["tag"] for row in rows] == [expected[i]["tags"][0]["tag"] for i in (2, 0)]
