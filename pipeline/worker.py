"""The callable that Ray Data runs: one actor per worker of a stage, one shard reference a call."""

import functools
from typing import Any

from pipeline.config import load_run
from pipeline.identities import recorded_stage
from pipeline.isolate import find_poison
from pipeline.spread import RaySpread
from pipeline.storage import open_storage
from pipeline.store import Store
from pipeline.work import State, Work


class StageWorker:
    """Takes shard references {shard, state} and passes them on once the shard is committed, or marked where it is not.

    A reference that is already marked passes through untouched: what failed upstream is not tried downstream.
    """

    def __init__(self, location: str, stage: str, session: str) -> None:
        self.work = make_work(location, stage, session)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        states = [
            self.work.run(shard) if state == "done" else state
            for shard, state in zip(batch["shard"], batch["state"], strict=True)
        ]
        return {"shard": batch["shard"], "state": states}

    def __del__(self) -> None:
        """Ray Data drops its workers when their stage is done; engines and temporary files go with them."""
        if hasattr(self, "work"):
            self.work.close()


def worker_class(stage: str) -> type[StageWorker]:
    """A class of the stage's own name: Ray Data keys its statistics by class name, so names must differ."""
    name = "".join(part.capitalize() for part in stage.replace(".", "_").split("_")) + "Worker"
    return type(name, (StageWorker,), {"__module__": __name__})


def make_work(location: str, stage: str, session: str) -> Work:
    made = recorded_stage(location, stage)
    return Work(
        Store(open_storage(location)),
        made,
        session=session,
        retries=load_run(location).run.retries,
        find_poison=functools.partial(find_poison, location, stage),
        spread=RaySpread(location, made.config.resources),
    )


def gather(location: str, stage: str, session: str) -> State:
    """A gather stage, start to end; run as one Ray task."""
    work = make_work(location, stage, session)
    try:
        return work.run("all")
    finally:
        work.close()
