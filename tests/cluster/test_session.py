"""Ray starts quietly, is shared where it runs, stops without a trace, and an address that is wrong is said to be."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.session import connect
from schemas.errors import RequestError

SCRIPT = """
from cluster.session import connect

with connect(num_cpus=2):
    import ray

    with connect("auto"):
        pass
    assert ray.is_initialized(), "the inner block closed the outer one's Ray"
    assert ray.cluster_resources()["CPU"] == 2
    print(ray._private.worker.global_worker.node.get_session_dir_path())
assert not ray.is_initialized()
"""


@pytest.mark.ray
def test_local_ray_is_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    deep = tmp_path / "a-folder-name-that-makes-socket-paths-too-long" / ("x" * 40)
    deep.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(deep)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    session = Path(done.stdout.strip())
    assert not session.parent.exists()
    deadline = time.monotonic() + 20
    while left := [p.info["pid"] for p in psutil.process_iter(["pid", "cmdline"]) if _of(p, session)]:
        assert time.monotonic() < deadline, f"processes of {session} are still alive: {left}"
        time.sleep(0.2)


def _of(process: psutil.Process, session: Path) -> bool:
    return any(str(session) in word for word in process.info["cmdline"] or ())


@pytest.fixture
def unconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests before may have left this process connected, and then no address is looked at."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)


@pytest.mark.usefixtures("unconnected")
def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RequestError, match=f"No Ray cluster answers at {address}"), connect(address):
            pass


@pytest.mark.usefixtures("unconnected")
def test_an_address_that_is_none() -> None:
    with pytest.raises(RequestError, match="'head' is not one"), connect("head"):
        pass


@pytest.mark.ray
def test_session_fixture_is_joined(ray_session: None) -> None:
    import ray

    with connect(num_cpus=1):
        assert ray.cluster_resources()["CPU"] == 4
    assert ray.is_initialized()
