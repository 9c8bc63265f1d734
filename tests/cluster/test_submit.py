"""Runs as jobs of a real Ray head: one job per run at a time, resumed under the next id, stopped, refused clearly."""

import json
import shlex
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from cluster.submit import JobState, entrypoint, job_logs, job_status, stop_job, submit, submit_run
from pipeline.cli import app
from pipeline.submission import submit_run_directory
from schemas.errors import RequestError
from tests.cluster.ray_head import ray_head, until

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    with ray_head() as url:
        yield url


def _ended(head: str, run_id: str) -> JobState:
    until(lambda: job_status(head, run_id).over, 60)
    return job_status(head, run_id)


def test_a_run_is_one_job_at_a_time_and_resumes(head: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = f"echo begun; while [ ! -e {shlex.quote(str(gate))} ]; do sleep 0.1; done; echo ended"
    assert submit_run(head, "laion-1", command) == "laion-1"
    with pytest.raises(RequestError, match=r"'laion-1' has a job .* already") as refused:
        submit_run(head, "laion-1", command)
    assert "ray job stop laion-1" in str(refused.value)
    gate.touch()
    first = _ended(head, "laion-1")
    assert (first.status, first.attempt, first.exit_code) == ("SUCCEEDED", 1, 0)
    assert {"begun", "ended"} <= set(job_logs(head, "laion-1").splitlines())

    assert submit_run(head, "laion-1", "echo again; exit 3") == "laion-1.2"
    second = _ended(head, "laion-1")
    assert (second.status, second.attempt, second.exit_code) == ("FAILED", 2, 3)
    assert "again" in job_logs(head, "laion-1") and "begun" not in job_logs(head, "laion-1")


def _lives(pid: int) -> bool:
    """Whether there is such a process, other than one that has ended and whose parent has not asked yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_of_two_who_submit_at_once_one_succeeds(head: str) -> None:
    def attempt(_: int) -> str:
        try:
            return submit_run(head, "raced", "sleep 60")
        except RequestError as error:
            assert "has a job" in str(error)
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, range(4))) == ["raced", "refused", "refused", "refused"]
    stop_job(head, "raced")


def test_stop_ends_the_job_and_its_children(head: str, tmp_path: Path) -> None:
    child = tmp_path / "child"
    submit_run(head, "stopped", f"sleep 1000 & echo $! > {shlex.quote(str(child))}.new; mv {child}.new {child}; wait")
    until(child.exists, 60)
    assert stop_job(head, "stopped").status == "STOPPED"
    until(lambda: not _lives(int(child.read_text())), 20)
    assert stop_job(head, "stopped").status == "STOPPED"


def test_config_overrides_and_environment_arrive(head: str, tmp_path: Path) -> None:
    """An interpreter that only reports stands in for the image's, to see the command as the cluster gets it."""
    reporter = tmp_path / "reporter"
    reporter.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "print('REPORT' + json.dumps([sys.argv[1:], open('run.yaml').read(), os.environ['HF_HOME']]))\n"
    )
    reporter.chmod(0o755)
    config = "ingest:\n  sources: ['it''s.parquet']\n"
    submit(config, 's3://bucket/it\'s "$HOME"', "argv", head, env={"HF_HOME": "/m"}, python=str(reporter))
    assert _ended(head, "argv").status == "SUCCEEDED"
    (line,) = [line for line in job_logs(head, "argv").splitlines() if line.startswith("REPORT")]
    arguments, text, home = json.loads(line.removeprefix("REPORT"))
    assert arguments[:2] == ["-m", "pipeline.cli"]
    assert arguments[2:] == ["run", "run.yaml", "--run-dir", 's3://bucket/it\'s "$HOME"', "--address", "auto"]
    assert (text, home) == (config, "/m")


def test_the_job_joins_its_own_cluster(head: str, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "from cluster.session import connect\n"
        "from cluster.capacity import cluster_capacity\n"
        "with connect('auto'):\n"
        "    print('CPUS', sum(node['CPU'] for node in cluster_capacity()))\n"
    )
    submit_run(head, "joins", f"{shlex.quote(sys.executable)} {shlex.quote(str(script))}")
    assert _ended(head, "joins").status == "SUCCEEDED", job_logs(head, "joins")
    assert "CPUS 2.0" in job_logs(head, "joins")


def test_a_wrong_token(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(RequestError, match="refused the token, or wants one"):
        job_status(head, "laion-1")


def test_an_unknown_run(head: str) -> None:
    with pytest.raises(RequestError, match="knows no job of run 'never'"):
        job_logs(head, "never")


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(RequestError, match="No Ray head answers at http://127"):
            submit_run(f"http://127.0.0.1:{unused.getsockname()[1]}", "r", "true")


@pytest.mark.parametrize("address", ["head:6379", "ray://head:10001", ""])
def test_an_address_that_takes_no_jobs(address: str) -> None:
    with pytest.raises(RequestError, match="cannot take jobs"):
        submit_run(address, "r", "true")


@pytest.mark.parametrize("run_id", ["", "a/b", "-a", "a" * 64, "a b"])
def test_a_run_id_that_cannot_name_a_job(run_id: str) -> None:
    with pytest.raises(RequestError, match="cannot name a Ray job"):
        submit_run("http://127.0.0.1:1", run_id, "true")


def test_entrypoint_is_the_command_that_a_user_types() -> None:
    assert entrypoint("/runs/a b") == "python -m pipeline.cli run run.yaml --run-dir '/runs/a b' --address auto"


def test_the_pipeline_runs_as_a_job(head: str, tmp_path: Path) -> None:
    """The real command, with a request that it refuses: the config arrived, and so does the answer."""
    missing = tmp_path / "missing.parquet"
    overrides = [f"ingest.sources=[{missing}]"]
    run_id = submit_run_directory("single-node", overrides, str(tmp_path / "run"), head, {}, sys.executable)
    state = _ended(head, run_id)
    assert (state.status, state.exit_code) == ("FAILED", 2), job_logs(head, run_id)
    assert str(missing) in job_logs(head, run_id).replace("\n", "")


def test_an_environment_variable_is_given_with_its_value() -> None:
    words = ["submit", "demo", "--run-dir", "runs/x", "--address", "http://127.0.0.1:1", "--env", "HF_HOME"]
    refused = CliRunner().invoke(app, words).exception
    assert isinstance(refused, RequestError)
    assert "NAME=VALUE" in str(refused)
