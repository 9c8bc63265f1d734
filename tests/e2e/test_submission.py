"""The same run as a Ray job, on a head started for the test."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.submit import job_logs, job_status
from pipeline.submission import submit_run_directory
from tests.cluster.ray_head import ray_head, until
from tests.e2e.conftest import SMALL, Run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    with ray_head() as url:
        yield url


def test_a_run_that_was_not_finished_is_finished_by_a_job(finished: Run, head: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(finished.folder, run.folder)
    shutil.rmtree(run.folder / "package/commits")
    shutil.rmtree(run.folder / "dataset")
    run_id = submit_run_directory("demo", list(SMALL), str(run.folder), head, {}, sys.executable)
    until(lambda: job_status(head, run_id).over, 120)
    printed = job_logs(head, run_id)
    assert job_status(head, run_id).status == "SUCCEEDED", printed
    assert run.tars() == finished.tars()
    before = finished.attempts()
    assert {stage for stage, shards in run.attempts().items() if shards != before[stage]} == {"package"}
