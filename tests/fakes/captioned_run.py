"""A run up to `caption`, on given pictures and priors: select and caption are the real stages, the engine is given."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import load_run, override_config, save_run
from pipeline.identities import IDENTITIES_FILE, recorded_stages
from pipeline.storage import LocalStorage
from pipeline.store import Store
from pipeline.work import Work
from schemas.section import StageSection
from schemas.tables import BOXES_PRIOR, OCR_PRIOR
from stages.base import MapStage, ShardInput, ShardOutput, Stage
from stages.caption import CaptionStage
from tests.fakes.pictured_run import pictured_run

ROWS = 24
EXPERTS = {"ocr": OCR_PRIOR, "closed_set": BOXES_PRIOR}
FULL = 2
"""One row in so many has far more boxes and lines than any window takes."""


class _Given(MapStage):
    """The priors of an expert that looked already; the first selected row of every shard is one that it failed on."""

    version = 1
    rows_from = "select"

    def __init__(self, expert: str, fails: bool) -> None:
        super().__init__(StageSection())
        self.name, self.schema, self._expert, self._fails = f"perceive.{expert}", EXPERTS[expert], expert, fails

    def process(self, shard: ShardInput) -> ShardOutput:
        uids = shard.tables["select"].column("uid").to_pylist()
        rows = [_prior(self._expert, uid, failed=self._fails and uid == uids[0]) for uid in uids]
        return ShardOutput(pa.Table.from_pylist(rows, schema=self.schema))


def _prior(expert: str, uid: str, *, failed: bool) -> dict[str, Any]:
    number = int(uid, 16)
    many = 300 if number % FULL == 0 else 3
    error = "the model ran out of memory" if failed else None
    if expert == "ocr":
        place = [0.1, 0.1, 0.4, 0.1, 0.4, 0.2, 0.1, 0.2]
        lines = [{"text": f"LINE {i} OF {number}", "score": 0.9 - i / 1000, "polygon": place} for i in range(many)]
        return {"uid": uid, "lines": [] if failed else lines, "error": error}
    corner = {"x1": 0.1, "y1": 0.2, "x2": 0.5, "y2": 0.6}
    boxes = [{"label": f"thing {i}", "score": 0.9 - i / 1000, "anchor": i} | corner for i in range(many)]
    return {"uid": uid, "boxes": boxes, "error": None}


def perceived_run(folder: Path, engine: dict[str, Any], settings: list[str]) -> Store:
    """Everything before `caption`; the first row of a shard is one that the reader of text failed on."""
    run = pictured_run(folder, rows=ROWS, shard_rows=ROWS)
    off = [f"perceive.{expert}=null" for expert in ("tags", "open_set", "depth", "florence")]
    given = [f"caption.engine.{name}={json.dumps(value)}" for name, value in engine.items()]
    plain = ["caption.prompt.tags=false", "caption.prompt.depth=false", "select.shard_rows=6", "select.per_cluster=2"]
    save_run(str(folder), override_config(load_run(str(folder)), [*off, *plain, *given, *settings], str(folder)))
    storage = LocalStorage(folder)
    config = load_run(str(folder))
    caption = next(s for s in recorded_stages(config, storage) if s.name == "caption")
    recorded = json.loads(storage.read(IDENTITIES_FILE))
    recorded["caption"] = {**caption.models(), "engine": "given"}
    storage.write(IDENTITIES_FILE, json.dumps(recorded).encode())
    select = next(s for s in recorded_stages(config, storage) if s.name == "select")
    do(run.store, select, ["all"])
    for expert in EXPERTS:
        do(run.store, _Given(expert, fails=expert == "ocr"), run.store.shards("select"))
    return run.store


def caption(store: Store, folder: Path, shards: list[str]) -> None:
    """Have the real stage caption shards of the run, its engine the one of the configuration."""
    stages = recorded_stages(load_run(str(folder)), store.storage)
    do(store, next(stage for stage in stages if isinstance(stage, CaptionStage)), shards)


def select_anew(store: Store, folder: Path) -> list[str]:
    """Select by the settings as they are now, have the experts look again; the shards that come of it."""
    stages = recorded_stages(load_run(str(folder)), store.storage)
    store.withdraw("select", "all")
    do(store, next(stage for stage in stages if stage.name == "select"), ["all"])
    for expert in EXPERTS:
        do(store, _Given(expert, fails=expert == "ocr"), store.shards("select"))
    return store.shards("select")


def do(store: Store, stage: Stage, shards: list[str]) -> None:
    work = Work(store, stage, session="s", retries=0)
    try:
        for shard in shards:
            assert work.run(shard) == "done", store.failures(stage.name)
    finally:
        work.close()
