"""A Ray head with its job server, for tests that submit to one."""

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from cluster.submit import job_status
from schemas.errors import RequestError


@contextmanager
def ray_head() -> Iterator[str]:
    """URL of a Ray head of its own, which wants a token; the environment holds the token."""
    folder = tempfile.mkdtemp(prefix="head-", dir="/tmp")
    ports = iter(_free_ports(5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        dashboard = next(ports)
        # In the foreground, so that ending this one process ends them all.
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2",
            "--include-dashboard=true", f"--port={next(ports)}", f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={next(ports)}", f"--dashboard-agent-listen-port={next(ports)}",
            f"--metrics-export-port={next(ports)}", "--min-worker-port=0", "--max-worker-port=0",
            "--object-store-memory=100000000", f"--temp-dir={folder}",
        ]  # fmt: skip
        with (Path(folder) / "start.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{dashboard}"
        try:
            until(lambda: _answers(url, process), 90)
            # What the submitting user has: a token, and no mode.
            patch.delenv("RAY_AUTH_MODE")
            yield url
        finally:
            _end(process, folder)
            shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _answers(url: str, process: subprocess.Popen) -> bool:
    assert process.poll() is None, "ray start ended"
    try:
        job_status(url, "nobody")
    except RequestError as error:
        return "knows no job" in str(error)
    except RuntimeError:
        return False
    return True


def _processes(folder: str) -> list[int]:
    processes = psutil.process_iter(["pid", "cmdline"])
    return [p.info["pid"] for p in processes if any(folder in word for word in p.info["cmdline"] or ())]


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.2)


def _end(process: subprocess.Popen, folder: str) -> None:
    """Ray ends its processes when it is asked to; one that it forgets is killed, so that no test finds it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for pid in [process.pid, *_processes(folder)]:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    process.wait(20)
    until(lambda: not _processes(folder), 30)
