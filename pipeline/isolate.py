"""Finding the rows that kill their worker: halves of a shard are tried in processes of their own until one row is left.

A process that raises has survived; only one that dies counts. Each probe opens the stage anew, so this is slow, and it
only runs for a shard that has killed several workers.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable

from pipeline.identities import recorded_stage
from pipeline.storage import open_storage
from pipeline.store import Store
from pipeline.work import Work, without_rows
from stages.base import MapStage

SURVIVED = "survived"


def bisect(uids: list[str], survives: Callable[[list[str]], bool]) -> list[str]:
    """The uids that kill the process they are in, by halving. `survives` is asked once for each part."""
    if not uids or survives(uids):
        return []
    if len(uids) == 1:
        return uids
    middle = len(uids) // 2
    return bisect(uids[:middle], survives) + bisect(uids[middle:], survives)


def find_poison(location: str, stage: str, shard: str, uids: list[str]) -> list[str]:
    """Poison uids of one shard, each part tried in a child process; none where a child dies without any row."""

    def survives(part: list[str]) -> bool:
        request = json.dumps({"location": location, "stage": stage, "shard": shard, "uids": part})
        child = subprocess.run(
            [sys.executable, "-m", "pipeline.isolate"], input=request, capture_output=True, text=True, check=False
        )
        return SURVIVED in child.stdout

    # Where the stage itself kills its process (a broken library, no memory for the model) no row is to blame.
    return bisect(uids, survives) if survives([]) else []


def probe(location: str, stage_name: str, shard: str, uids: list[str]) -> None:
    """Do some rows of a shard and throw the result away."""
    store = Store(open_storage(location))
    stage = recorded_stage(location, stage_name)
    assert isinstance(stage, MapStage)
    assert stage.rows_from is not None
    work = Work(store, stage, session="probe", retries=0)
    scratch = store.storage.scratch(f"probe.{uuid.uuid4().hex[:12]}")
    try:
        given = work.shard_input(stage, shard, scratch)
        everyone = set(given.tables[stage.rows_from].column("uid").to_pylist())
        stage.open()
        stage.process(without_rows(given, stage.rows_from, everyone - set(uids)))
        stage.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main() -> None:
    request = json.load(sys.stdin)
    try:
        probe(request["location"], request["stage"], request["shard"], request["uids"])
    finally:
        print(SURVIVED, flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
