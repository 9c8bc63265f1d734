import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo.captioner.rows import Row
from demo.captioner.truth import VOCABULARY, truth_record
from demo.world import World, build_world
from fusion.evaluate.metrics import measure
from fusion.evaluate.reader import ClaimReader
from fusion.evaluate.truth import TruthRow
from fusion.evaluate.vocabulary import Vocabulary
from pipeline.storage import LocalStorage
from pipeline.store import Store
from tests.e2e.conftest import SMALL, Run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def world(finished: Run) -> World:
    return build_world(finished.folder / "world", scenes=20, seed=7)


def samples(run: Run) -> dict[str, dict[str, bytes]]:
    import webdataset

    shards = [str(path) for path in sorted((run.folder / "dataset/data").glob("*.tar"))]
    return {s["__key__"]: s for s in webdataset.WebDataset(shards, shardshuffle=False)}


def test_rows_balance_at_every_stage_and_the_funnel_ends_in_the_tars(finished: Run) -> None:
    status = finished.ask("status")
    assert status["complete"]
    for stage in status["stages"]:
        assert stage["rows_in"] == stage["rows_out"] + sum(stage["dropped"].values()), stage
        assert (stage["committed"], stage["failed"]) == (stage["shards"], 0)
    assert status["stages"][-1]["rows_out"] == len(samples(finished)) > 0


def test_every_row_of_the_metadata_is_in_the_dataset_or_in_the_ledger_once(finished: Run, world: World) -> None:
    given = Counter(url or "" for url in pq.read_table(world.metadata).column("URL").to_pylist())
    ledger = finished.ask("ledger", "--sql", "select uid, url from ledger")
    kept = [json.loads(s["json"])["url"] for s in samples(finished).values()]
    assert Counter(row["url"] for row in ledger) + Counter(kept) == given
    uids = [row["uid"] for row in ledger] + list(samples(finished))
    assert len(set(uids)) == len(uids) == sum(given.values())


def test_what_was_planted_stops_where_it_should(finished: Run, world: World) -> None:
    rows = finished.ask(
        "ledger", "--sql", "select url, stage, reason from ledger where stage in ('ingest', 'download')"
    )
    stopped = Counter((row["url"], row["reason"]) for row in rows)
    urls = pq.read_table(world.metadata).column("URL").to_pylist()
    expected = Counter((urls[i] or "", str(reason)) for i, reason in world.expected.items() if reason is not None)
    assert stopped == expected


def test_samples_are_whole_and_the_bytes_those_that_were_served(finished: Run, world: World) -> None:
    store = Store(LocalStorage(finished.folder))
    for uid, sample in samples(finished).items():
        facts = json.loads(sample["json"])
        assert facts["uid"] == uid
        with Image.open(io.BytesIO(sample["jpg"])) as image:
            image.load()
        assert sample["txt"].decode()
    originals = {
        row["uid"]: row["sha256"]
        for shard in store.shards("download")
        for row in store.table("download", shard, ["uid", "sha256"]).to_pylist()
    }
    assert all(json.loads(s["json"])["sha256"] == originals[uid] for uid, s in samples(finished).items())


def test_datasets_reads_it_as_a_user_would(finished: Run, tmp_path: Path) -> None:
    import datasets

    files = [str(path) for path in sorted((finished.folder / "dataset/data").glob("*.tar"))]
    rows = datasets.load_dataset("webdataset", data_files={"train": files}, split="train", cache_dir=str(tmp_path))
    assert set(rows["__key__"]) == set(samples(finished))


def test_the_experts_saw_something(finished: Run) -> None:
    store = Store(LocalStorage(finished.folder))
    for expert, column in {"tags": "tags", "open_set": "boxes", "closed_set": "boxes", "ocr": "lines"}.items():
        tables = [store.table(f"perceive.{expert}", shard) for shard in store.shards(f"perceive.{expert}")]
        assert any(len(value) for table in tables for value in table.column(column).to_pylist()), expert


def test_signs_are_read_for_real(finished: Run, world: World) -> None:
    store = Store(LocalStorage(finished.folder))
    read: dict[str, str] = {}
    for shard in store.shards("perceive.ocr"):
        for row in store.table("perceive.ocr", shard).to_pylist():
            read[row["uid"]] = "".join(line["text"] for line in row["lines"]).replace(" ", "").lower()
    signs = found = 0
    for shard in store.shards("select"):
        for row in store.table("select", shard).to_pylist():
            for sign in (o for o in world.truth[row["url"]].objects if o.condition == "clean"):
                signs += 1
                # Word by word: lines of two signs side by side are read across both.
                found += all(word in read[row["uid"]] for word in (sign.text or "").lower().split())
    assert signs >= 5
    assert found >= 0.9 * signs


def test_captions_name_what_is_in_the_pictures(finished: Run, world: World) -> None:
    reader = ClaimReader(Vocabulary.model_validate(VOCABULARY))
    found = []
    for uid, sample in samples(finished).items():
        scene = world.truth[json.loads(sample["json"])["url"]]
        truth = TruthRow.model_validate({"uid": uid, **truth_record(Row(scene, "", None, {}))})
        found.append(measure(reader.read(sample["txt"].decode()), truth)["object_f1"])
    assert sum(one.out_of for one in found) >= 60
    assert sum(one.hits for one in found) > 0.8 * sum(one.out_of for one in found)


def test_a_second_run_does_nothing_and_says_so_in_seconds(finished: Run) -> None:
    before, began = finished.attempts(), os.times()
    code, printed = finished.finish()
    assert code == 0
    assert "Nothing to do" in printed
    # Of its own work: what passes on the clock meanwhile is up to whatever else runs here.
    ended = os.times()
    assert ended.children_user + ended.children_system - began.children_user - began.children_system < 15
    assert finished.attempts() == before


def test_a_run_may_end_at_a_stage(finished: Run) -> None:
    code, printed = finished.finish(words=("--until", "select"))
    assert code == 0
    assert "every shard up to select is committed" in " ".join(printed.split())
    code, printed = finished.finish(words=("--until", "choose"))
    assert code == 2
    assert "no stage `choose`" in " ".join(printed.split())


def test_verify_is_content_until_a_byte_changes(finished: Run, tmp_path: Path) -> None:
    assert finished.ask("verify") == {"ok": True, "problems": []}
    damaged = Run(tmp_path / "run")
    shutil.copytree(finished.folder, damaged.folder)
    victim = next((damaged.folder / "caption/data").iterdir())
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(bytes(data))
    answer = damaged.ask("verify")
    assert not answer["ok"]
    assert any(victim.name in problem for problem in answer["problems"])


def test_a_threshold_re_runs_no_expert_and_another_model_that_expert_alone(finished: Run, tmp_path: Path) -> None:
    changed = ("--set", "perceive.open_set.threshold=0.4", "--set", "perceive.tags.top_k=5")
    plans = {s["name"]: s for s in finished.ask("explain", *changed)["stages"]}
    assert {name for name, s in plans.items() if s["rerun"]} == {"caption", "package"}
    assert plans["caption"]["because"] == ["perceive.open_set.threshold", "perceive.tags.top_k"]

    other = tmp_path / "detector"
    shutil.copytree(finished.folder / "world/weights/detector", other)
    with (other / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    plans = {s["name"]: s for s in finished.ask("explain", "--set", f"perceive.closed_set.model={other}")["stages"]}
    assert {name for name, s in plans.items() if s["rerun"]} == {"perceive.closed_set", "caption", "package"}
    assert plans["perceive.closed_set"]["because"] == ["perceive.closed_set.model"]


def test_one_caption_setting_re_runs_caption_and_package_only(finished: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(finished.folder, run.folder)
    plans = {s["name"]: s for s in finished.ask("explain", "--set", "caption.prompt.max_boxes=1")["stages"]}
    assert {name for name, s in plans.items() if s["rerun"]} == {"caption", "package"}
    assert plans["caption"]["because"] == ["caption.prompt.max_boxes"]
    assert plans["package"]["because"] == ["inputs.caption"]
    before = run.attempts()
    changed = [*SMALL, "caption.prompt.max_boxes=1"]
    code, printed = run.finish(changed)
    assert code == 0, printed
    assert "caption.prompt.max_boxes: 12 -> 1" in printed
    after = run.attempts()
    assert {stage for stage in after if after[stage] != before[stage]} == {"caption", "package"}
    new = run.tars()
    assert new.keys() == finished.tars().keys()
    assert new != finished.tars()  # what is not shown is told of otherwise
    # As if killed between the last commit and the dataset folder: the old one is still there.
    shutil.rmtree(run.folder / "dataset")
    shutil.copytree(finished.folder / "dataset", run.folder / "dataset")
    assert run.finish(changed)[0] == 0
    assert run.tars() == new
