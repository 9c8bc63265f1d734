"""What a web server may do when it is asked for something: answer well, answer badly, or misbehave.

Each behaviour is data (it is kept in the world's JSON) and answers one request through an `Exchange`.
"""

import gzip
import socket
import struct
import threading
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

CHUNK = 64 * 1024


class ServerStoppedError(Exception):
    """The server shuts down while a behaviour still waits or writes."""


class Exchange:
    """One request as a behaviour sees it.

    Attributes:
        folder: where the files of `Serve` lie.
        earlier: how often this URL was asked for before.
    """

    def __init__(self, handler: BaseHTTPRequestHandler, folder: Path, earlier: int, stopping: threading.Event) -> None:
        self.folder, self.earlier = folder, earlier
        self._handler, self._stopping = handler, stopping

    def head(self, status: int, headers: dict[str, str]) -> None:
        """Send the status line and the headers. A body without a Content-Length ends with the connection."""
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        if "Content-Length" not in headers:
            self.hang_up()
        self._handler.end_headers()

    def write(self, data: bytes) -> None:
        """Raises ServerStoppedError, or OSError once the client is gone."""
        if self._stopping.is_set():
            raise ServerStoppedError
        if self._handler.command != "HEAD":
            self._handler.wfile.write(data)

    def wait(self, seconds: float) -> None:
        """Raises ServerStoppedError."""
        if self._stopping.wait(seconds):
            raise ServerStoppedError

    def hang_up(self) -> None:
        """Close the connection after this answer."""
        self._handler.close_connection = True

    def reset(self) -> None:
        """Drop the connection at once: the client sees a reset, not an end."""
        self._handler.wfile.flush()
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.connection.close()
        self.hang_up()


class Behaviour(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @abstractmethod
    def answer(self, exchange: Exchange) -> None: ...


class Serve(Behaviour):
    """A file, with the type and further headers that are claimed for it."""

    kind: Literal["serve"] = "serve"
    file: str
    content_type: str = "image/jpeg"
    headers: dict[str, str] = {}

    def body(self, exchange: Exchange) -> bytes:
        return (exchange.folder / self.file).read_bytes()

    def half(self, exchange: Exchange) -> None:
        """State the whole length, send half of it."""
        data = self.body(exchange)
        exchange.head(200, {"Content-Type": self.content_type, "Content-Length": str(len(data))})
        exchange.write(data[: len(data) // 2])

    def answer(self, exchange: Exchange) -> None:
        data = self.body(exchange)
        exchange.head(200, {"Content-Type": self.content_type, "Content-Length": str(len(data)), **self.headers})
        exchange.write(data)


class Answer(Behaviour):
    """A status with a short text: dead links, robots.txt, pages that are no image."""

    kind: Literal["answer"] = "answer"
    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    text: str = ""
    headers: dict[str, str] = {}

    def answer(self, exchange: Exchange) -> None:
        data = self.text.encode()
        exchange.head(
            self.status, {"Content-Type": self.content_type, "Content-Length": str(len(data)), **self.headers}
        )
        exchange.write(data)


class Redirect(Behaviour):
    """To anywhere: to itself it makes a loop."""

    kind: Literal["redirect"] = "redirect"
    location: str
    status: int = 302

    def answer(self, exchange: Exchange) -> None:
        exchange.head(self.status, {"Location": self.location, "Content-Length": "0"})


class Slow(Behaviour):
    """Thinks for `seconds`, then answers well."""

    kind: Literal["slow"] = "slow"
    seconds: float
    then: Serve

    def answer(self, exchange: Exchange) -> None:
        exchange.wait(self.seconds)
        self.then.answer(exchange)


class Busy(Behaviour):
    """429 with Retry-After for the first `refusals` requests of a URL, then answers well."""

    kind: Literal["busy"] = "busy"
    refusals: int = 1
    retry_after: int = 1
    then: Serve

    def answer(self, exchange: Exchange) -> None:
        if exchange.earlier < self.refusals:
            exchange.head(429, {"Retry-After": str(self.retry_after), "Content-Length": "0"})
        else:
            self.then.answer(exchange)


class Drip(Behaviour):
    """A byte every `pause` seconds, for ever, so that no single read times out."""

    kind: Literal["drip"] = "drip"
    pause: float = 0.2

    def answer(self, exchange: Exchange) -> None:
        exchange.head(200, {"Content-Type": "image/jpeg"})
        while True:
            exchange.write(b"\xff")
            exchange.wait(self.pause)


class Endless(Behaviour):
    """As many bytes as the client takes, without a Content-Length."""

    kind: Literal["endless"] = "endless"

    def answer(self, exchange: Exchange) -> None:
        exchange.head(200, {"Content-Type": "image/jpeg"})
        while True:
            exchange.write(bytes(CHUNK))


class ShortBody(Behaviour):
    """States the file's whole length and hangs up half-way."""

    kind: Literal["short_body"] = "short_body"
    of: Serve

    def answer(self, exchange: Exchange) -> None:
        self.of.half(exchange)
        exchange.hang_up()


class Reset(Behaviour):
    """States the file's whole length and resets the connection half-way."""

    kind: Literal["reset"] = "reset"
    of: Serve

    def answer(self, exchange: Exchange) -> None:
        self.of.half(exchange)
        exchange.reset()


class GzipBomb(Behaviour):
    """A small gzip-encoded body that unpacks to `megabytes` MiB of zeros."""

    kind: Literal["gzip_bomb"] = "gzip_bomb"
    megabytes: int = 100

    def answer(self, exchange: Exchange) -> None:
        member = gzip.compress(bytes(2**20), mtime=0)  # a gzip file may be a chain of members
        length = str(len(member) * self.megabytes)
        exchange.head(200, {"Content-Type": "image/jpeg", "Content-Encoding": "gzip", "Content-Length": length})
        for _ in range(self.megabytes):
            exchange.write(member)


AnyBehaviour = Annotated[
    Serve | Answer | Redirect | Slow | Busy | Drip | Endless | ShortBody | Reset | GzipBomb,
    Field(discriminator="kind"),
]
