"""Hosts that have stopped answering are left alone, so that their URLs do not each wait out a deadline."""

import threading
import time
from collections import OrderedDict

from schemas.ledger import Reason
from stages.fetch.errors import FetchRefused

_UNANSWERED = {Reason.CONNECT, Reason.TIMEOUT}
_REST_S = 600.0
_REMEMBERED_HOSTS = 100_000


class HostHealth:
    """Counts a host's failures to answer since its last answer.

    Args:
        failures: this many in a row and the host rests for ten minutes; 0 never rests one.
    """

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self._lock = threading.Lock()
        self._failing: OrderedDict[str, tuple[int, float, Reason]] = OrderedDict()

    def check(self, host: str) -> None:
        """Raises FetchRefused, with the reason of the host's last failure, while the host rests."""
        with self._lock:
            count, last, reason = self._failing.get(host, (0, 0.0, Reason.TIMEOUT))
        if self._failures and count >= self._failures and time.monotonic() - last < _REST_S:
            raise FetchRefused(reason, f"not asked: {host} failed to answer {count} times in a row")

    def note(self, host: str, refused: FetchRefused | None = None) -> None:
        """What came of a request; a refusal other than a failure to answer shows that the host is there."""
        with self._lock:
            if refused is None or refused.reason not in _UNANSWERED:
                self._failing.pop(host, None)
                return
            count = self._failing.get(host, (0, 0.0, refused.reason))[0] + 1
            self._failing[host] = (count, time.monotonic(), refused.reason)
            self._failing.move_to_end(host)
            if len(self._failing) > _REMEMBERED_HOSTS:
                self._failing.popitem(last=False)
