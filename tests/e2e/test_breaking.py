"""Runs that are broken on purpose: wrong requests, dead workers, dead engines, dead drivers."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.storage import LocalStorage
from pipeline.store import Store
from tests.e2e.conftest import SMALL, Run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


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
    assert str(bad) in printed  # whole, to be copied, however narrow the terminal
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


def test_workers_an_engine_and_the_driver_are_killed_and_no_row_is_lost(finished: Run, fresh: Run) -> None:
    """The driver in every part of the run, four times in all; below it what works, while it does."""
    with driver_of(fresh):
        wait_for(lambda: any((fresh.folder / "ingest/data").glob("*")))
    with driver_of(fresh) as driver:
        kill_when(fresh, "download", driver, "MapBatches(DownloadWorker)")
        wait_for(lambda: any((fresh.folder / "embed/data").glob("*")))
    with driver_of(fresh):
        wait_for(lambda: any((fresh.folder / "select/data").glob("*")))
    with driver_of(fresh) as driver:
        kill_when(fresh, "perceive.ocr", driver, "MapBatches(PerceiveOcrWorker)")
        kill_when(fresh, "caption", driver, "vllm.entrypoints.openai.api_server")
        wait_for(lambda: any((fresh.folder / "caption/commits").glob("*.json")))
    wait_for(lambda: not engines(fresh))
    code, printed = fresh.finish()
    assert code == 0, printed
    assert fresh.ask("verify")["ok"]
    assert fresh.tars() == finished.tars()
    wait_for(lambda: not engines(fresh))


def test_an_image_that_kills_every_process_that_opens_it_costs_one_row(finished: Run, fresh: Run) -> None:
    store = Store(LocalStorage(finished.folder))
    rows = store.table("download", "00001").to_pylist()
    poison = rows[len(rows) // 2]
    crash = {"PYTHONPATH": str(Path(__file__).parent / "crash"), "POISON_SHA256": poison["sha256"]}
    code, printed = fresh.finish(env=crash, words=("--until", "download"))
    assert code == 0, printed
    same = [row["uid"] for row in rows if row["sha256"] == poison["sha256"]]
    stopped = fresh.ask("ledger", "--sql", "select uid, stage from ledger where reason = 'poison'")
    assert stopped == [{"uid": uid, "stage": "download"} for uid in same]
    assert fresh.ask("verify")["ok"]
    before, after = ({s["name"]: s for s in run.ask("status")["stages"]} for run in (finished, fresh))
    assert after["download"]["rows_out"] == before["download"]["rows_out"] - len(same)


@contextmanager
def driver_of(run: Run) -> Iterator[psutil.Process]:
    """A run under way, whose driver is killed in the end, done or not."""
    driver = run.start()
    try:
        yield psutil.Process(driver.pid)
        assert driver.poll() is None, "the run was over before it was killed"
    finally:
        driver.kill()
        driver.wait()


def kill_when(run: Run, stage: str, driver: psutil.Process, name: str) -> None:
    """SIGKILL the process below the driver whose command line holds `name`, once it is at work on a shard of `stage`.

    Ray's workers carry the stage in their command line.
    """

    def found() -> list[psutil.Process]:
        return [process for process in driver.children(recursive=True) if name in line_of(process)]

    wait_for(lambda: any((run.folder / stage / "attempts").glob("*.json")) and found())
    for process in found():
        process.kill()


def engines(run: Run) -> list[psutil.Process]:
    """Living engines of this run, whoever started them: their command line names its folder."""
    lines = ((process, line_of(process)) for process in psutil.process_iter())
    return [process for process, line in lines if "vllm.entrypoints" in line and str(run.folder) in line]


def line_of(process: psutil.Process) -> str:
    """The command line; nothing of a process that has ended, or of a guardian, which carries its ward's."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        line = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
    return "" if "guardian" in line else line


def wait_for(condition: Callable[[], object], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
