"""Scores are measured on what `dedup` left, before `select`; another limit on them runs no expert again."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from experts.nsfw import NsfwSection
from pipeline.config import load_config
from pipeline.graph import build_stages, segments, shards_come_from
from pipeline.plan import plan
from pipeline.store import Store
from schemas.errors import RequestError
from schemas.ledger import Reason
from schemas.section import StageSection
from schemas.tables import CLUSTER, DEDUP, DOWNLOAD, INGEST
from stages.base import GatherInput, GatherStage, ShardOutput, Stage
from stages.perceive import PerceiveStage
from stages.select import SelectSection, SelectStage
from tests.fakes.score_models import classifier
from tests.photographs import photograph
from tests.pipeline.stages_for_tests import store_at, work_on

SHARDS = {"00000": ["astronaut", "coffee"], "00001": ["page"]}
SCORES = ["perceive.aesthetic={}", "perceive.nsfw={}", "perceive.watermark={}"]


def test_scores_stand_between_dedup_and_select_and_only_select_reads_them() -> None:
    stages = build_stages(load_config("demo", SCORES, "runs/x"))
    names = [stage.name for stage in stages]
    first = names.index("dedup") + 1
    assert set(names[first : first + 3]) == {"perceive.aesthetic", "perceive.nsfw", "perceive.watermark"}
    assert names[first + 3] == "select"
    assert {shards_come_from(stages, stage) for stage in stages[first : first + 3]} == {"dedup"}
    assert [stage.name for stage in stages if "perceive.nsfw" in stage.also_reads] == ["select"]
    assert any([stage.name for stage in segment] == names[first : first + 3] for segment in segments(stages))
    plain = build_stages(load_config("demo", [], "runs/x"))
    assert [name for name in names if name not in names[first : first + 3]] == [stage.name for stage in plain]


class Given(GatherStage):
    """Three photographs in two shards, as the stages before would have left them."""

    version = 1
    rows_from = None

    def __init__(self, name: str, schema: pa.Schema) -> None:
        super().__init__(StageSection())
        self.name, self.schema = name, schema

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        for shard, pictures in SHARDS.items():
            rows, images = [], b""
            for number, name in enumerate(pictures):
                file = io.BytesIO()
                photograph(name).save(file, "PNG")
                uid = f"{int(shard) * 10 + number:032x}"
                row = {"uid": uid, "url": f"http://a.example/{uid}", "sha256": "0" * 64, "format": "png", "phash": 0}
                row |= {"width": 9, "height": 9, "orientation": 1, "cluster": 0, "centroid_cosine": 0.5}
                row |= {"near_clusters": [], "near_cosines": [], "source": "s", "source_row": 0}
                rows.append(row | {"image_offset": len(images), "image_bytes": file.tell()})
                images += file.getvalue()
            path = inputs.scratch / f"{shard}.tar"
            path.write_bytes(images)
            yield shard, ShardOutput(pa.Table.from_pylist(rows, schema=self.schema), files={"images": path})


def stages_of(model: Path, **settings: float) -> list[Stage]:
    schemas = {"ingest": INGEST, "download": DOWNLOAD, "cluster": CLUSTER, "dedup": DEDUP}
    nsfw = PerceiveStage("nsfw", NsfwSection(model=str(model), decode_threads=1))
    return [*(Given(*given) for given in schemas.items()), nsfw, SelectStage(SelectSection(**settings), ("nsfw",))]


def done(store: Store, stages: list[Stage]) -> None:
    for item, stage in zip(plan(store.storage, stages), stages, strict=True):
        for shard in item.shards or list(SHARDS):
            assert work_on(store, stage).run(shard) == "done", store.failures(stage.name)


def test_another_limit_redoes_select_alone(tmp_path: Path) -> None:
    store = store_at(tmp_path / "run")
    model = classifier(tmp_path / "model", ["normal", "nsfw"])
    stages = stages_of(model)
    done(store, stages)
    assert not any(item.pending for item in plan(store.storage, stages))
    measured = {row["uid"]: row for shard in SHARDS for row in store.table("perceive.nsfw", shard).to_pylist()}
    chosen = store.table("select", "00000").to_pylist()
    assert {row["uid"]: row["nsfw_score"] for row in chosen} == {uid: row["score"] for uid, row in measured.items()}
    scores = sorted(row["score"] for row in measured.values())
    assert 0 <= scores[0] < scores[1] < scores[2] <= 1

    stricter = stages_of(model, max_nsfw=scores[1])
    assert {item.name: item.because for item in plan(store.storage, stricter) if item.pending} == {
        "select": ["select.max_nsfw"]
    }
    done(store, stricter)
    assert sorted(row["nsfw_score"] for row in store.table("select", "00000").to_pylist()) == scores[:2]
    [stopped] = [row for table in store.ledger("select") for row in table.to_pylist()]
    assert stopped["reason"] == Reason.NSFW
    assert stopped["detail"] == f"nsfw {scores[2]:.4g} is above max_nsfw {scores[1]:g}"


def test_the_model_decides_what_is_measured(tmp_path: Path) -> None:
    store = store_at(tmp_path / "run")
    done(store, stages_of(classifier(tmp_path / "one", ["normal", "nsfw"])))
    other = stages_of(classifier(tmp_path / "other", ["nsfw", "normal"]))
    pending = {item.name: item.because for item in plan(store.storage, other) if item.pending}
    assert pending["perceive.nsfw"] == ["perceive.nsfw.model"]
    assert "inputs.perceive.nsfw" in pending["select"]


@pytest.mark.parametrize("name", ["max_nsfw", "max_watermark", "min_aesthetic"])
def test_limits_need_their_expert_before_anything_starts(name: str) -> None:
    stages = {stage.name: stage for stage in build_stages(load_config("demo", [f"select.{name}=0.5"], "runs/x"))}
    with pytest.raises(RequestError, match=rf"select\.{name} is 0\.5"):
        stages["select"].check()
