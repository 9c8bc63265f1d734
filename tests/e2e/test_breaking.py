"""Runs that are broken on purpose: wrong requests, dead workers, dead engines, dead drivers."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.storage import LocalStorage
from pipeline.store import Store
from tests.e2e.conftest import SMALL, Run

pytestmark = pytest.mark.e2e


@pytest.fixture
def fresh(finished: Run, tmp_path: Path) -> Run:
    """A run directory with the world built and nothing done."""
    run = Run(tmp_path / "run")
    shutil.copytree(finished.folder / "world", run.folder / "world")
    return run


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Run:
    """A finished run directory of its own."""
    run = Run(tmp_path / "run")
    shutil.copytree(finished.folder, run.folder)
    return run


def sets(*overrides: str) -> list[str]:
    return [*SMALL, *overrides]


def test_more_gpus_than_there_are_is_refused_before_anything_starts(fresh: Run) -> None:
    code, printed = fresh.finish(sets("perceive.ocr.resources.gpus=3"))
    assert code == 2
    assert "perceive.ocr.resources.gpus=" in " ".join(printed.split())
    assert not list(fresh.folder.glob("*/commits"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("caption.max_tokenz=3", "did you mean `max_tokens`"),
        ("ingest.sources=[/nowhere/metadata.parquet]", "/nowhere/metadata.parquet"),
        ("embed.model=/nowhere/clip", "/nowhere/clip"),
    ],
)
def test_a_wrong_request_is_one_paragraph_and_exit_code_2(fresh: Run, override: str, said: str) -> None:
    code, printed = fresh.finish(sets(override))
    assert code == 2
    assert said in " ".join(printed.split())
    assert "Traceback" not in printed


def test_a_corrupt_metadata_file_is_named_and_costs_nothing(copy: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_bytes((copy.folder / "world/metadata.parquet").read_bytes()[:-400])
    before = copy.attempts()
    code, printed = copy.finish(sets(f"ingest.sources=[{bad}]"))
    assert code == 2
    assert "bad.parquet" in printed
    assert "Traceback" not in printed
    assert copy.attempts() == before
    assert copy.finish()[0] == 0
    assert copy.attempts() == before


def test_an_engine_that_never_becomes_healthy_is_said_once_and_nothing_is_lost(copy: Run) -> None:
    before = copy.attempts()
    code, printed = copy.finish(sets("caption.engine.extra_args=[--no-such-flag]"))
    assert code == 1
    assert "no-such-flag" in printed
    assert "Traceback" not in printed
    assert copy.attempts() == before
    code, printed = copy.finish()
    assert (code, "Nothing to do" in printed) == (0, True)


def test_a_shard_that_fails_leaves_the_others_done_and_retry_picks_it_up(finished: Run, copy: Run) -> None:
    store = Store(LocalStorage(copy.folder))
    shard = store.shards("select")[0]
    images = copy.folder / store.record_of("download", store.shards("download")[0]).objects[-1].key
    hidden = images.rename(images.with_suffix(".hidden"))
    shutil.rmtree(copy.folder / "package/commits")
    code, printed = copy.finish()
    assert code == 1
    assert f"package {shard}" in printed
    assert "densefusion retry" in printed
    status = copy.ask("status")
    assert not status["complete"]
    last = status["stages"][-1]
    assert last["failed"] >= 1
    assert last["failed"] + last["committed"] == last["shards"]
    hidden.rename(images)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "retry", str(copy.folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert copy.tars() == finished.tars()


def test_a_second_runner_is_refused(fresh: Run) -> None:
    first = fresh.start()
    try:
        wait_for(lambda: (fresh.folder / "lease.json").exists())
        code, printed = fresh.finish()
        assert code == 2
        assert f"process {first.pid}" in " ".join(printed.split())
    finally:
        first.kill()
        first.wait()


def test_a_worker_an_engine_and_the_driver_are_killed_and_no_row_is_lost(finished: Run, fresh: Run) -> None:
    driver = fresh.start()
    try:
        kill_when(fresh, "download", "MapBatches(DownloadWorker)")
        kill_when(fresh, "perceive.ocr", "MapBatches(PerceiveOcrWorker)")
        kill_when(fresh, "caption", "vllm.entrypoints.openai.api_server")
        wait_for(lambda: any((fresh.folder / "caption/commits").glob("*.json")))
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: not processes(fresh, "vllm.entrypoints"))
    code, printed = fresh.finish()
    assert code == 0, printed
    assert fresh.ask("verify")["ok"]
    assert fresh.tars() == finished.tars()
    wait_for(lambda: not processes(fresh, "vllm.entrypoints"))


def test_a_killed_driver_loses_nothing_wherever_it_was(finished: Run, fresh: Run) -> None:
    for stage in ("ingest", "embed", "select"):
        driver = fresh.start()
        wait_for(lambda stage=stage: any((fresh.folder / stage / "data").glob("*")), driver.poll)
        driver.kill()
        driver.wait()
    code, printed = fresh.finish()
    assert code == 0, printed
    assert fresh.tars() == finished.tars()


def test_an_image_that_kills_every_process_that_opens_it_costs_one_row(finished: Run, fresh: Run) -> None:
    store = Store(LocalStorage(finished.folder))
    rows = store.table("download", "00001").to_pylist()
    poison = rows[len(rows) // 2]
    crash = {"PYTHONPATH": str(Path(__file__).parent / "crash"), "POISON_SHA256": poison["sha256"]}
    code, printed = fresh.finish(env=crash)
    assert code == 0, printed
    same = [row["uid"] for row in rows if row["sha256"] == poison["sha256"]]
    stopped = fresh.ask("ledger", "--sql", "select uid, stage from ledger where reason = 'poison'")
    assert stopped == [{"uid": uid, "stage": "download"} for uid in same]
    assert fresh.ask("verify")["ok"]
    before, after = ({s["name"]: s for s in run.ask("status")["stages"]} for run in (finished, fresh))
    assert after["download"]["rows_out"] == before["download"]["rows_out"] - len(same)


def kill_when(run: Run, stage: str, name: str) -> None:
    """SIGKILL the process whose command line holds `name`, once it is at work on a shard of `stage`."""
    wait_for(lambda: any((run.folder / stage / "attempts").glob("*.json")) and processes(run, name))
    for process in processes(run, name):
        process.kill()


def processes(run: Run, name: str) -> list[psutil.Process]:
    """Processes of this run: Ray's workers carry the stage in their title, the engine the run's folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        mine = str(run.folder) in line or line.startswith("ray::")
        if name in line and mine and process.info["status"] != psutil.STATUS_ZOMBIE and "guardian" not in line:
            found.append(process)
    return found


def wait_for(condition: Callable[[], object], ended: Callable[[], object] = lambda: None, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        if ended() is not None:
            return
        time.sleep(0.05)
