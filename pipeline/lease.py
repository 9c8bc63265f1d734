"""One runner a run: a lease with a heartbeat. The second runner refuses; a dead runner's lease is taken over."""

import json
import os
import socket
import threading
import time
import uuid
from typing import Any

import psutil

from pipeline.storage import Storage
from schemas.errors import RequestError

KEY = "lease.json"
BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class Lease:
    """Held for as long as the `with` block runs.

    A lease is another's to take when its heartbeat is older than STALE_SECONDS, or at once when its holder was a
    process of this host that no longer lives: nobody waits after a kill.

    Raises:
        RequestError: somebody else holds it.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.lost = threading.Event()
        self._stop = threading.Event()
        self._mine: bytes = b""
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._owner = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": psutil.Process().create_time(),
        }

    def __enter__(self) -> "Lease":
        self._mine = self._record()
        if not self.storage.create(KEY, self._mine):
            theirs = self.storage.read(KEY)
            holder = _parse(theirs)
            if holder is not None and _alive(holder):
                raise RequestError(
                    f"This run directory is in use by process {holder['pid']} on {holder['host']} (heartbeat "
                    f"{max(0, time.time() - holder['heartbeat']):.0f} s ago). Wait for it, or stop it first; "
                    "two runners would do the same work twice."
                )
            if not self.storage.replace(KEY, theirs, self._mine):
                raise RequestError(
                    "Another runner took this run directory at this moment. Look at `densefusion status`."
                )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if not self.lost.is_set() and self.storage.read(KEY) == self._mine:
            self.storage.delete(KEY)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            fresh = self._record()
            if not self.storage.replace(KEY, self._mine, fresh):
                self.lost.set()
                return
            self._mine = fresh

    def _record(self) -> bytes:
        return json.dumps({**self._owner, "heartbeat": time.time()}).encode()


def holder_of(storage: Storage) -> dict[str, Any] | None:
    """The live holder of the lease, or None."""
    try:
        holder = _parse(storage.read(KEY))
    except FileNotFoundError:
        return None
    return holder if holder is not None and _alive(holder) else None


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        holder = json.loads(data)
    except ValueError:
        return None
    return holder if isinstance(holder, dict) and {"host", "pid", "heartbeat"} <= holder.keys() else None


def _alive(holder: dict[str, Any]) -> bool:
    if time.time() - holder["heartbeat"] > STALE_SECONDS:
        return False
    if holder["host"] != socket.gethostname():
        return True
    try:
        process = psutil.Process(holder["pid"])
        same = abs(process.create_time() - holder["process_started"]) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
