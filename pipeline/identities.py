"""What lay outside the run directory when the run last started (metadata files, models, prompts), by identity.

It is kept in RUN/identities.json beside run.yaml, and every worker and every later look at the run go by it. So
weights are hashed once a run, not once a worker, and a finished run can be shown, verified and published when its
metadata and its models are gone. `run` and `explain` look at the outside world anew.
"""

import json

from pipeline.config import Config, load_run
from pipeline.graph import build_stages
from pipeline.storage import Storage, open_storage
from stages.base import Stage

IDENTITIES_FILE = "identities.json"


def save_identities(storage: Storage, stages: list[Stage]) -> None:
    """Write RUN/identities.json. Raises RequestError where something that a stage needs is not there."""
    identities = {stage.name: stage.identity for stage in stages}
    storage.write(IDENTITIES_FILE, json.dumps(identities, indent=1).encode())


def recorded_stages(config: Config, storage: Storage) -> list[Stage]:
    """Every stage of a run, upstream first, with the identities that the run started with."""
    try:
        recorded = json.loads(storage.read(IDENTITIES_FILE))
    except FileNotFoundError:
        recorded = {}
    stages = build_stages(config)
    for stage in stages:
        if stage.name in recorded:
            stage.identity = recorded[stage.name]
    return stages


def recorded_stage(location: str, name: str) -> Stage:
    """One stage of a run directory, as its workers need it."""
    stages = recorded_stages(load_run(location), open_storage(location))
    return next(stage for stage in stages if stage.name == name)
