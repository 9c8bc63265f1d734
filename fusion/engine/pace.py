"""How fast a hosted engine may be asked, and how long it is waited for when it says: not so fast."""

import asyncio
import email.utils
import math
import time
from collections.abc import Mapping
from datetime import UTC

MEAN_OVER = 32
"""Answers that the mean of a question's tokens looks back on."""


class Pace:
    """Spaces questions evenly, within requests and tokens a minute. One engine's; its clients'
    questions may wait in it together.

    Args:
        requests_per_minute, tokens_per_minute: None sets no limit. Tokens are prompt and answer together; what a
            question will take is guessed as the mean of those before it.
        patience_s: how long one question waits, all its waits together, on a server that refuses for the pace.
    """

    def __init__(
        self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None, patience_s: float = 600
    ) -> None:
        self.patience_s = patience_s
        self._requests, self._tokens = requests_per_minute, tokens_per_minute
        self._mean = 0.0
        self._next = self._not_before = 0.0

    async def turn(self) -> None:
        """Wait until one more question may be asked."""
        mine = self._place()
        while (wait := mine - time.monotonic()) > 0:
            await asyncio.sleep(wait)
            if mine < self._not_before:  # a hold came while we slept
                mine = self._place()

    def took(self, tokens: int) -> None:
        """Tokens that a question took, prompt and answer."""
        self._mean += (tokens - self._mean) / (MEAN_OVER if self._mean else 1)

    def hold(self, seconds: float) -> None:
        """Nobody asks for so long: the server has said so."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _place(self) -> float:
        mine = max(time.monotonic(), self._next, self._not_before)
        self._next = mine + self._gap()
        return mine

    def _gap(self) -> float:
        by_requests = 60 / self._requests if self._requests else 0.0
        by_tokens = 60 * self._mean / self._tokens if self._tokens else 0.0
        return max(by_requests, by_tokens)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone, as a number or a date (RFC 9110, section 10.2.3), or in milliseconds
    as some hosts say it; None where it does not say, or nothing that can be read.

    Args:
        headers: of its answer, by names in lower case.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    said = headers.get("retry-after", "")
    seconds = _number(said)
    if seconds is None:
        seconds = _until(said)
    return None if seconds is None else max(0.0, seconds)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _until(date: str) -> float | None:
    """Seconds until then."""
    try:
        then = email.utils.parsedate_to_datetime(date)
        # HTTP's dates are in GMT, said or not.
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
