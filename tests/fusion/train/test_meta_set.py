"""The meta set, from the draw to the batch: what the preset's engine says is what `caption-engine` learns from."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from fusion.train.encoding import IGNORED
from fusion.train.run import prepare
from fusion.train.section import load_section
from pipeline.config import load_config, load_run
from pipeline.identities import recorded_stages
from pipeline.store import CommittedImages, Store
from schemas.identity import file_sha256
from stages.base import ShardInput
from stages.dataset import PackagedShard, assemble_dataset
from stages.ingest import IngestSection, IngestStage
from stages.package import PackageStage
from tests.fakes import captioned_run
from tests.fakes.memory_gather import MemoryGather, run_gather
from tests.fakes.recording_engine import Recorded, recording_engine, texts_of

DRAWN = 5
KEY = "A_KEY_OF_SOMEBODY"
PAGE = Path(__file__).parents[3] / "docs" / "captioning.md"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """Answers every row in words of its own."""
    monkeypatch.setenv(KEY, "secret")
    with recording_engine(8192, lambda text: len(text) // 4) as recorded:
        recorded.answer = lambda body: f"A plain picture. {_place(body)} is written on it."
        yield recorded


def _place(body: dict[str, object]) -> str:
    found = re.search(r"LINE 0 OF \d+", texts_of(body)[1])
    return found.group() if found else "Nothing"


def meta_settings(engine: Recorded) -> list[str]:
    """What the preset says of `select` and `caption`; a smaller draw, and an engine that is here."""
    config = load_config("meta-set", ["ingest.sources=[given]"], "runs/x")
    caption = config.caption.model_dump(mode="json")
    caption["engine"] |= {"base_url": engine.base_url, "api_key_env": KEY, "requests_per_minute": 60_000}
    select = config.select.model_dump(mode="json") | {"limit": DRAWN, "shard_rows": 3}
    return [f"caption={json.dumps(caption)}", f"select={json.dumps(select)}"]


def packaged(store: Store, folder: Path) -> Path:
    """A dataset by the run's own `package`; its pictures are given the hashes that they have, which the fake run made
    up."""
    stages = recorded_stages(load_run(str(folder)), store.storage)
    stage = next(one for one in stages if isinstance(one, PackageStage))
    images, shards = CommittedImages(store), []
    for name in store.shards("select"):
        tables = {table: store.table(table, name) for table in ("caption", *stage.also_reads)}
        tables["select"] = _with_hashes(tables["select"], images)
        output = stage.process(ShardInput(name, tables, images, _made(folder / "packaged" / name)))
        tar = output.files["dataset"]
        shards.append(PackagedShard(name, tar, file_sha256(tar), tar.stat().st_size, output.rows))
    assemble_dataset(folder / "dataset", shards, "# card")
    return folder / "dataset"


def _with_hashes(select: pa.Table, images: CommittedImages) -> pa.Table:
    places = select.select(["image_shard", "image_offset", "image_bytes"]).to_pylist()
    hashes = [hashlib.sha256(images.read(*place.values())).hexdigest() for place in places]
    return select.set_column(select.schema.get_field_index("sha256"), select.schema.field("sha256"), pa.array(hashes))


def test_its_packaged_shards_train_the_caption_engine(
    tmp_path: Path, engine: Recorded, parts: Callable[[str], str]
) -> None:
    folder = tmp_path / "run"
    store = captioned_run.perceived_run(folder, {}, meta_settings(engine))
    captioned_run.caption(store, folder, store.shards("select"))
    dataset = packaged(store, folder)
    asked = [body for body in engine.requests if body["max_tokens"] == 512]
    assert all("18. Write at most 192 words." in texts_of(body)[0] for body in asked)
    captions = [text for table in map(_captions(store), store.shards("caption")) for text in table]
    assert 0 < len(captions) == len(asked) <= DRAWN
    assert len(list((folder / "caption" / "lasting").glob("*.jsonl"))) == 1

    source = {"format": "webdataset", "path": str(dataset), "prompt": {"template": "caption_engine.v1"}}
    settings = {"data.sources": [source], "model": {"llava": {"model": parts("llava_next")}}}
    more = ["sharding=none", "precision=fp32", f"output={tmp_path / 'out'}"]
    section = load_section(
        "caption-engine", [*(f"{key}={json.dumps(value)}" for key, value in settings.items()), *more]
    )
    training = prepare(section)
    assert len(training.rows) == len(captions)
    tokenizer = training.assembled.processor.tokenizer
    learnt = []
    for row in range(len(training.rows)):
        encoded = training.rows.encoded(row)
        answer = encoded["input_ids"][encoded["labels"] != IGNORED]
        learnt.append(tokenizer.decode(answer, skip_special_tokens=True).strip())
        assert encoded["pixel_values"].shape[0] > 0
        # it is asked as the engine will be, not as the stronger model was
        assert "Write at most" not in tokenizer.decode(encoded["input_ids"])
    assert learnt == captions


def _captions(store: Store) -> Callable[[str], list[str]]:
    return lambda shard: store.table("caption", shard).column("caption").to_pylist()


def test_the_draw_that_the_page_shows_is_at_random_and_keeps_uids(tmp_path: Path, engine: Recorded) -> None:
    settings = [*meta_settings(engine), "select.limit=null"]
    store = captioned_run.perceived_run(tmp_path / "run", {}, settings)
    uids = [uid for shard in store.shards("select") for uid in store.table("select", shard).column("uid").to_pylist()]
    found = re.search(r"(python -c [^`]*?select/data[^`]*?)\n```", PAGE.read_text())
    assert found
    assert "runs/big/select" in found[1] and "110000" in found[1]
    drawn = []
    for seed, number in ((1234, 4), (1234, 4), (7, 4), (1234, 1000)):
        command = found[1].replace("python", sys.executable, 1).replace("runs/big", str(tmp_path / "run"))
        command = command.replace("'1234'", f"'{seed}'").replace("110000", str(number))
        subprocess.run(["bash", "-c", command], check=True, cwd=tmp_path, timeout=60)
        stage = IngestStage(IngestSection(sources=[str(tmp_path / "drawn.parquet")]))
        stage.check()
        outputs = run_gather(stage, MemoryGather(_made(tmp_path / "scratch"), {}))
        drawn.append([uid for output in outputs.values() for uid in output.rows.column("uid").to_pylist()])
    assert len(set(drawn[0])) == 4
    assert set(drawn[0]) < set(uids)
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(drawn[3]) == sorted(uids)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
