"""The demo's web server in a process of its own, so that it takes no turns of the interpreter that is measured."""

import contextlib
import multiprocessing
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from demo.behaviours import Behaviour
from demo.server import WebServer


@contextlib.contextmanager
def web(routes: Mapping[str, Behaviour], folder: Path) -> Iterator[dict[str, str]]:
    """`host:80` to `127.0.0.1:port` of a running server; arguments as of `WebServer`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(routes, folder, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def _serve(routes: Mapping[str, Behaviour], folder: Path, pipe: Connection) -> None:
    """Serve until the other end of the pipe is closed, also by the death of its process."""
    with WebServer(routes, folder) as server:
        pipe.send(server.connect_to)
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            pipe.recv()
