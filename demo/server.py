"""A loopback web server for many hosts, told apart by the Host header.

    python -m demo.server --folder FOLDER [--scenes N] [--seed S] [--port P]

builds the scene world in FOLDER if it is not there, serves it, and prints what a `download` section needs.
"""

import argparse
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from demo.behaviours import Answer, Behaviour, Exchange, ServerStoppedError
from demo.world import World, build_world

IDLE_SECONDS = 30
_NOT_FOUND = Answer(status=404, text="<h1>Not found</h1>")


@dataclass(frozen=True)
class Request:
    """One line of the request log; `at` is `time.monotonic`, in seconds."""

    method: str
    url: str
    user_agent: str
    at: float


class WebServer:
    """Serves URLs of made-up hosts from 127.0.0.1, as a context manager.

    Args:
        routes: absolute `http` URL to what happens there; any other URL of the server is a 404.
        folder: where the files of `Serve` lie.
        port: 0 takes a free one.
        closed: hosts at which no one listens, so that a connection is refused.

    Attributes:
        requests: what was asked for, in the order of arrival.
    """

    def __init__(
        self, routes: Mapping[str, Behaviour], folder: Path, port: int = 0, closed: Iterable[str] = ()
    ) -> None:
        self.requests: list[Request] = []
        self._routes, self._folder = routes, folder
        self._counts: Counter[str] = Counter()
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._http = _Server(("127.0.0.1", port), self._handler())
        # Bound but not listening: the port stays ours, and connecting to it is refused.
        self._deaf = socket.socket()
        self._deaf.bind(("127.0.0.1", 0))
        self._closed = sorted(closed)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return self._http.server_address[1]

    @property
    def hosts(self) -> list[str]:
        """All hosts of the server; a download section must name them in `allow_hosts`."""
        return sorted({urlsplit(url).hostname or "" for url in self._routes} | set(self._closed))

    @property
    def connect_to(self) -> dict[str, str]:
        """`host:80` to `127.0.0.1:port`, as the download section of a config takes it."""
        deaf = self._deaf.getsockname()[1]
        return {f"{h}:80": f"127.0.0.1:{deaf if h in self._closed else self.port}" for h in self.hosts}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._deaf.close()
        self._thread.join()

    def _note(self, request: Request) -> int:
        """Log a request; returns how often its URL was asked for before."""
        with self._lock:
            self.requests.append(request)
            self._counts[request.url] += 1
            return self._counts[request.url] - 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = IDLE_SECONDS

            def do_GET(self) -> None:
                host = self.headers.get("Host", "").partition(":")[0].lower()
                url = f"http://{host}{self.path}"
                agent = self.headers.get("User-Agent", "")
                earlier = server._note(Request(self.command, url, agent, time.monotonic()))
                exchange = Exchange(self, server._folder, earlier, server._stopping)
                try:
                    server._routes.get(url, _NOT_FOUND).answer(exchange)
                except (ServerStoppedError, OSError):
                    self.close_connection = True

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Requests are kept in `WebServer.requests` instead of being printed."""

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is none of the server's errors."""


class WorldServer(WebServer):
    """Serves a scene world."""

    def __init__(self, world: World, port: int = 0) -> None:
        super().__init__(world.routes, world.folder, port, world.closed_hosts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.server", description="Serve the scene world on loopback.")
    parser.add_argument("--folder", type=Path, required=True, help="where the world is, or is to be built")
    parser.add_argument("--scenes", type=int, default=150, help="distinct good scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments = parser.parse_args()
    world = build_world(arguments.folder, arguments.scenes, arguments.seed)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with WorldServer(world, arguments.port) as server:
        section = {"allow_hosts": server.hosts, "connect_to": server.connect_to}
        print(json.dumps({"port": server.port, "metadata": str(world.metadata), "download": section}), flush=True)
        done.wait()


if __name__ == "__main__":
    main()
