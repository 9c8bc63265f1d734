"""How much memory of its own this process holds while something runs."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EVERY = 0.002
"""Seconds between two looks."""


@dataclass
class Watched:
    """Megabytes that no file backs.

    Attributes:
        before: when the watch began.
        most: the greatest since.
    """

    before: float
    most: float


@contextlib.contextmanager
def watched_memory() -> Iterator[Watched]:
    """Looks from a thread of its own for as long as the context lasts."""
    seen = Watched(*[_anonymous_mb()] * 2)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            seen.most = max(seen.most, _anonymous_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _anonymous_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024
