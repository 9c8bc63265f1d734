"""A wall-clock limit over everything that one URL needs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.ledger import Reason
from stages.fetch.errors import FetchRefused


class Deadline:
    """Runs from its construction. Belongs to one thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left; not above 0 once it has passed."""
        return self._end - time.monotonic()

    def left(self) -> float:
        """Seconds left, above 0. Raises FetchRefused(timeout) once it has passed."""
        remaining = self.remaining()
        if remaining <= 0:
            raise self.passed()
        return remaining

    def passed(self) -> FetchRefused:
        """The refusal of a URL that ran out of time."""
        return FetchRefused(Reason.TIMEOUT, f"no complete answer in {self._seconds:g} s", transient=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here is not charged: waiting for our own politeness is not the server's slowness."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - start
