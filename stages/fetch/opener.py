"""The one way out: every request of a download worker passes here."""

import email.utils
import http.client
import io
import time
import urllib.request
import urllib.response
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Any, TypeVar

from schemas.ledger import Reason
from stages.fetch.body import check_coding, read_body
from stages.fetch.deadline import Deadline
from stages.fetch.errors import FetchRefused
from stages.fetch.health import HostHealth
from stages.fetch.optout import OptOut
from stages.fetch.pacer import HostPacer
from stages.fetch.robots import ROBOTS_BYTES, Robots
from stages.fetch.target import Target, parse_target, redirected
from stages.fetch.transport import Transport

T = TypeVar("T")

_REDIRECTS = {301, 302, 303, 307, 308}
_TRANSIENT = {429, 500, 502, 503, 504}
_BACKOFF_S = 0.5


@dataclass(frozen=True)
class Answer:
    """A complete 200 answer: where it came from after redirects, its headers, its body."""

    url: str
    headers: Message
    body: bytes


class GuardedOpener(urllib.request.OpenerDirector):
    """Fetches one URL within the limits, or says in one ledger reason why not. Thread-safe.

    It stands in for urllib's opener (`installed`), so that a library's `urlopen` goes through it. Of the caller's
    request only the URL is taken: method, headers and timeout are ours.

    Args:
        transport: connects, with the address policy.
        pacer: per-host politeness.
        health: which hosts are left alone.
        optout: header rules; they count on every hop.
        user_agent: sent as it is; its first token is our name in robots.txt.
        robots: obey robots.txt, on every hop.
        timeout_s: total wall clock of a URL: look-up, connection, TLS, all hops, body, retries and their pauses.
            Waiting for a host's slot and for its robots.txt (which has a deadline of its own) is not charged.
        max_bytes: cap on a body.
        max_redirects: hops after the first.
        retries: further attempts after a failed connection, a timeout, a short body, 429 or 5xx, if the deadline
            leaves room; Retry-After is waited for, or the URL is given up.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        pacer: HostPacer,
        health: HostHealth,
        optout: OptOut,
        user_agent: str,
        robots: bool,
        timeout_s: float,
        max_bytes: int,
        max_redirects: int,
        retries: int,
    ) -> None:
        super().__init__()
        self.transport = transport
        self._pacer = pacer
        self._health = health
        self._optout = optout
        self._robots = Robots(product_token(user_agent), self._robots_txt) if robots else None
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._max_redirects = max_redirects
        self._retries = retries
        self._headers = {
            "User-Agent": user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }

    def open(self, fullurl: Any, data: Any = None, timeout: Any = None) -> Any:
        """As urllib's openers are called; `data` and `timeout` are not used. Raises FetchRefused."""
        url = fullurl if isinstance(fullurl, str) else fullurl.full_url
        answer = self.fetch(url)
        return urllib.response.addinfourl(io.BytesIO(answer.body), answer.headers, answer.url, HTTPStatus.OK)

    def fetch(self, url: str) -> Answer:
        """The body behind a URL. Raises FetchRefused."""

        def read(target: Target, response: http.client.HTTPResponse) -> Answer:
            if response.status != HTTPStatus.OK:
                raise _bad_status(response)
            return Answer(target.url, response.headers, read_body(response, self._max_bytes))

        return self._attempts(parse_target(url), self._admit, self._optout.check, read)

    def _robots_txt(self, url: str) -> tuple[int, bytes]:
        def read(_: Target, response: http.client.HTTPResponse) -> tuple[int, bytes]:
            check_coding(response)
            try:
                return response.status, response.read(ROBOTS_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise FetchRefused(Reason.TRUNCATED_BODY, type(error).__name__, transient=True) from error

        return self._attempts(parse_target(url), _anything, _anything, read)

    def _admit(self, target: Target) -> None:
        if self._robots is not None:
            self._robots.check(target)

    def _attempts(
        self,
        target: Target,
        admit: Callable[[Target], None],
        check_headers: Callable[[Message], None],
        read: Callable[[Target, http.client.HTTPResponse], T],
    ) -> T:
        deadline = Deadline(self._timeout_s)
        attempt = 0
        while True:
            try:
                return self._follow(target, deadline, admit, check_headers, read)
            except FetchRefused as refused:
                pause = refused.retry_after if refused.retry_after is not None else _BACKOFF_S * 2**attempt
                if not refused.transient or attempt == self._retries or pause >= deadline.remaining():
                    raise
                time.sleep(pause)
                attempt += 1

    def _follow(
        self,
        target: Target,
        deadline: Deadline,
        admit: Callable[[Target], None],
        check_headers: Callable[[Message], None],
        read: Callable[[Target, http.client.HTTPResponse], T],
    ) -> T:
        for _ in range(self._max_redirects + 1):
            with deadline.paused():
                admit(target)
            outcome = self._hop(target, deadline, check_headers, read)
            if not isinstance(outcome, Target):
                return outcome
            target = outcome
        raise FetchRefused(Reason.REDIRECTS, f"more than {self._max_redirects} redirects")

    def _hop(
        self,
        target: Target,
        deadline: Deadline,
        check_headers: Callable[[Message], None],
        read: Callable[[Target, http.client.HTTPResponse], T],
    ) -> T | Target:
        """One request: what `read` makes of the answer, or where it redirects to."""
        # A slot is held for one hop: two hosts that redirect to each other must not wait for each other's slots.
        with self._pacer.slot(target.host, deadline):
            self._health.check(target.host)
            try:
                with self.transport.get(target, self._headers, deadline) as response:
                    # Error pages often say noindex; that reserves nothing.
                    if response.status in _REDIRECTS | {HTTPStatus.OK}:
                        check_headers(response.headers)
                    location = response.headers.get("Location")
                    outcome: T | Target
                    if response.status in _REDIRECTS and location is not None:
                        outcome = redirected(target, location)
                    else:
                        outcome = read(target, response)
            except FetchRefused as refused:
                self._health.note(target.host, refused)
                raise
            self._health.note(target.host)
            return outcome


def product_token(user_agent: str) -> str:
    """Our name as robots.txt and X-Robots-Tag know it: the user agent up to its version."""
    return user_agent.split()[0].split("/")[0]


@contextmanager
def installed(opener: GuardedOpener) -> Iterator[None]:
    """`urllib.request.urlopen` goes through `opener`, in the whole process, until the end of the block."""
    before = urllib.request._opener  # type: ignore[attr-defined]
    urllib.request.install_opener(opener)
    try:
        yield
    finally:
        urllib.request.install_opener(before)


def _anything(_: object) -> None:
    """robots.txt itself is asked for whatever robots.txt and its own headers say."""


def _bad_status(response: http.client.HTTPResponse) -> FetchRefused:
    status = response.status
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    return FetchRefused(
        Reason.HTTP_STATUS,
        f"{status} {phrase}".strip(),
        transient=status in _TRANSIENT,
        retry_after=_retry_after(response.headers.get("Retry-After")) if status in (429, 503) else None,
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds from now, of a Retry-After header in either of its two forms; None where it says nothing."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
