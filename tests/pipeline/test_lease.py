import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import lease
from pipeline.lease import KEY, Lease, holder_of
from pipeline.storage import LocalStorage
from schemas.errors import RequestError

HOLD = """
import sys, time
from pathlib import Path
from pipeline.lease import Lease
from pipeline.storage import LocalStorage
with Lease(LocalStorage(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def test_the_second_runner_refuses_and_a_killed_ones_lease_is_taken_at_once(storage: LocalStorage) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(storage.root)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        assert (holder_of(storage) or {})["pid"] == holder.pid
        with pytest.raises(RequestError, match=f"process {holder.pid}"), Lease(storage):
            pass
    finally:
        holder.kill()
        holder.wait()
    with Lease(storage):
        pass
    assert not storage.exists(KEY)


def test_another_hosts_lease_is_taken_only_when_it_is_stale(storage: LocalStorage) -> None:
    theirs = {
        "id": "x",
        "host": f"not-{socket.gethostname()}",
        "pid": 1,
        "process_started": 0.0,
        "heartbeat": time.time(),
    }
    storage.write(KEY, json.dumps(theirs).encode())
    with pytest.raises(RequestError), Lease(storage):
        pass
    storage.write(KEY, json.dumps({**theirs, "heartbeat": time.time() - lease.STALE_SECONDS - 1}).encode())
    with Lease(storage):
        assert holder_of(storage) is not None


def test_a_lease_that_was_taken_over_is_known_to_be_lost(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    with Lease(storage) as held:
        storage.write(KEY, b"{}")
        assert held.lost.wait(5)
    assert storage.read(KEY) == b"{}"


def test_a_broken_lease_file_blocks_nobody(storage: LocalStorage) -> None:
    storage.write(KEY, b"not json")
    with Lease(storage):
        pass
