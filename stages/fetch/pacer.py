"""Politeness: how many requests one host sees at once, and how close together."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from stages.fetch.deadline import Deadline

_REMEMBERED_HOSTS = 10_000


@dataclass
class _Host:
    slots: threading.Semaphore
    users: int = 0
    next_start: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_turn(self, delay_s: float) -> float:
        """Book the next start; seconds until then."""
        with self.lock:
            now = time.monotonic()
            start = max(now, self.next_start)
            self.next_start = start + delay_s
        return start - now


class HostPacer:
    """At most `concurrency` requests to one host at a time, their starts at least `delay_s` apart, in this process."""

    def __init__(self, concurrency: int, delay_s: float) -> None:
        self._concurrency = concurrency
        self._delay_s = delay_s
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}

    @contextmanager
    def slot(self, host: str, deadline: Deadline) -> Iterator[None]:
        """Hold one of the host's slots; the wait for it is not charged to the deadline."""
        state = self._enter(host)
        try:
            with deadline.paused():
                state.slots.acquire()
            try:
                with deadline.paused():
                    time.sleep(state.take_turn(self._delay_s))
                yield
            finally:
                state.slots.release()
        finally:
            with self._lock:
                state.users -= 1

    def _enter(self, host: str) -> _Host:
        now = time.monotonic()
        with self._lock:
            if len(self._hosts) > _REMEMBERED_HOSTS:
                self._hosts = {name: h for name, h in self._hosts.items() if h.users or h.next_start > now}
            state = self._hosts.setdefault(host, _Host(threading.Semaphore(self._concurrency)))
            state.users += 1
            return state
