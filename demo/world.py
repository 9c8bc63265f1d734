"""The scene world as a little web: LAION-style metadata, what each URL answers, and what must become of each row."""

import functools
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from demo.alt_text import alt_text
from demo.behaviours import AnyBehaviour
from demo.entry import Entry
from demo.planting import FILES, develop, plant
from demo.truth import SceneTruth
from schemas.ledger import Reason

VERSION = 2
"""Raise it when the same scenes and seed would now give another world."""

_WORLD, _METADATA, _TRUTH = "world.json", "metadata.parquet", "truth.json"


class World(BaseModel):
    """A built world.

    Attributes:
        folder: holds the metadata, the truth and the files that are served.
        entries: the rows of the metadata, in order.
        routes: absolute URL to what the server does there.
        closed_hosts: hosts at which no one listens.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    version: int = VERSION
    scenes: int
    seed: int
    entries: list[Entry]
    routes: dict[str, AnyBehaviour]
    closed_hosts: list[str]
    folder: Path = Field(exclude=True)

    @property
    def metadata(self) -> Path:
        """The parquet file with LAION's column names, one row an entry."""
        return self.folder / _METADATA

    @property
    def expected(self) -> dict[int, Reason | None]:
        """Row number in the metadata to the reason with which ingest or download must stop it, or None."""
        return {i: entry.expected for i, entry in enumerate(self.entries)}

    @functools.cached_property
    def truth(self) -> dict[str, SceneTruth]:
        """What is to be seen in the picture at a URL, in that picture's own pixels.

        Boxes are in px of the scene as rendered (`width` x `height` of the truth), also for a copy that was resized
        or cropped: divide by them where it matters.
        """
        data = json.loads((self.folder / _TRUTH).read_text(encoding="utf-8"))
        return {url: SceneTruth.from_json(truth) for url, truth in data.items()}


def build_world(folder: Path, scenes: int, seed: int) -> World:
    """The world in `folder`; built first where it is missing, unfinished, or of other arguments.

    The same arguments give the same files.

    Args:
        scenes: number of good, distinct pictures; the faults planted beside them are always the same kinds.
    """
    finished = folder / _WORLD
    if finished.is_file():
        data = json.loads(finished.read_text(encoding="utf-8"))
        if (data["version"], data["scenes"], data["seed"]) == (VERSION, scenes, seed):
            return World(**data, folder=folder)
        finished.unlink()
    shutil.rmtree(folder / FILES, ignore_errors=True)
    (folder / FILES).mkdir(parents=True)
    plan = plant(scenes, seed)
    truth = develop(plan, folder / FILES)
    for entry in plan.entries:
        if entry.scene is not None:
            entry.text = alt_text(truth[entry.scene]).text
    world = World(
        scenes=scenes,
        seed=seed,
        entries=plan.entries,
        routes=plan.routes,
        closed_hosts=plan.closed_hosts,
        folder=folder,
    )
    pq.write_table(_laion_table(world.entries), world.metadata)
    by_url = {e.url: truth[e.scene].as_json() for e in world.entries if e.url is not None and e.scene is not None}
    (folder / _TRUTH).write_text(json.dumps(by_url, indent=1), encoding="utf-8")
    draft = finished.with_suffix(".draft")
    draft.write_text(world.model_dump_json(indent=1), encoding="utf-8")
    draft.replace(finished)  # last: what has no world.json is built again
    return world


def _laion_table(entries: Sequence[Entry]) -> pa.Table:
    """The columns of LAION's improved-aesthetics files; sizes are doubles there because some are missing."""
    hashes = [hashlib.blake2b((e.url or "").encode(), digest_size=8).digest() for e in entries]
    return pa.table(
        {
            "URL": pa.array([e.url for e in entries], pa.string()),
            "TEXT": pa.array([e.text for e in entries], pa.string()),
            "WIDTH": pa.array([e.width for e in entries], pa.float64()),
            "HEIGHT": pa.array([e.height for e in entries], pa.float64()),
            "similarity": pa.array([e.similarity for e in entries], pa.float32()),
            "hash": pa.array([int.from_bytes(h, "big", signed=True) for h in hashes], pa.int64()),
            "punsafe": pa.array([e.punsafe for e in entries], pa.float32()),
            "pwatermark": pa.array([e.pwatermark for e in entries], pa.float32()),
            "AESTHETIC_SCORE": pa.array([e.aesthetic for e in entries], pa.float32()),
            "LANGUAGE": pa.array(["en"] * len(entries), pa.string()),
        }
    )
