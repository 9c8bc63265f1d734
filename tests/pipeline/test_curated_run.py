"""Curation gives the same bytes whatever the number of workers, and whatever was killed on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipeline.curated_run import SETTINGS, chosen, committed, curate

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What one worker makes, unbroken."""
    run = tmp_path_factory.mktemp("alone")
    curate(run, 1, [])
    return committed(run)


def test_three_workers_make_what_one_makes(tmp_path: Path, alone: dict[str, dict[str, str]]) -> None:
    curate(tmp_path, 3, [])
    assert committed(tmp_path) == alone


def test_a_run_killed_in_every_stage_ends_the_same(tmp_path: Path, alone: dict[str, dict[str, str]]) -> None:
    killed = []
    for stage in SETTINGS:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.curated_run", str(tmp_path), "1"], start_new_session=True
        )
        until = time.monotonic() + 120
        while child.poll() is None and time.monotonic() < until and not _under_way(tmp_path, stage):
            time.sleep(0.005)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            killed.append(stage)
        child.wait()
    assert killed[:2] == ["cluster", "dedup"]
    curate(tmp_path, 3, [])
    assert committed(tmp_path) == alone


def test_rows_may_lie_in_other_shards(tmp_path: Path, alone: dict[str, dict[str, str]]) -> None:
    curate(tmp_path / "a", 1, [])
    curate(tmp_path / "b", 1, [], shard_rows=431)
    assert chosen(tmp_path / "a") == chosen(tmp_path / "b")


def _under_way(run: Path, stage: str) -> bool:
    """Whether a stage has kept something, and has not committed yet."""
    begun = any(path.is_file() for path in (run / ".kept" / stage).rglob("*"))
    began = begun or (stage == "select" and any((run / ".scratch").glob("select.*")))
    return began and not (run / stage / "commits").exists()
