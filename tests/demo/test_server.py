"""The web server and every way in which it misbehaves, seen by a plain HTTP client on a socket."""

import gzip
import http.client
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo.behaviours import Answer, Busy, Drip, Endless, GzipBomb, Redirect, Reset, Serve, ShortBody, Slow
from demo.server import WebServer
from stages.download import DownloadSection

BODY = bytes(range(256)) * 400
FILE = Serve(file="picture.jpg", headers={"X-Robots-Tag": "noai"})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    (tmp_path / "picture.jpg").write_bytes(BODY)
    routes = {
        "http://a.test/picture.jpg": FILE,
        "http://b.test/picture.jpg": Answer(status=410, text="gone"),
        "http://b.test/moved.jpg": Redirect(location="http://a.test/picture.jpg", status=301),
        "http://b.test/slow.jpg": Slow(seconds=0.3, then=FILE),
        "http://b.test/busy.jpg": Busy(refusals=1, retry_after=2, then=FILE),
        "http://c.test/drip.jpg": Drip(pause=0.01),
        "http://c.test/endless.jpg": Endless(),
        "http://c.test/short.jpg": ShortBody(of=FILE),
        "http://c.test/reset.jpg": Reset(of=FILE),
        "http://c.test/bomb.jpg": GzipBomb(megabytes=8),
    }
    with WebServer(routes, tmp_path, closed=["closed.test"]) as running:
        yield running


def ask(server: WebServer, url: str, method: str = "GET") -> http.client.HTTPResponse:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, f"/{path}", headers={"Host": host, "User-Agent": "tester"})
    return connection.getresponse()


def test_hosts_are_told_apart_by_the_host_header(server: WebServer) -> None:
    served = ask(server, "http://a.test/picture.jpg")
    assert (served.status, served.headers["X-Robots-Tag"], served.read()) == (200, "noai", BODY)
    assert ask(server, "http://b.test/picture.jpg").status == 410
    assert ask(server, "http://c.test/picture.jpg").status == 404
    assert [r.url for r in server.requests] == [f"http://{h}.test/picture.jpg" for h in "abc"]
    assert {r.user_agent for r in server.requests} == {"tester"}


def test_a_connection_is_kept_for_further_requests(server: WebServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(3):
        connection.request("GET", "/picture.jpg", headers={"Host": "a.test"})
        assert connection.getresponse().read() == BODY
        assert connection.sock is not None


def test_head_has_no_body(server: WebServer) -> None:
    answer = ask(server, "http://a.test/picture.jpg", "HEAD")
    assert (answer.status, int(answer.headers["Content-Length"]), answer.read()) == (200, len(BODY), b"")


def test_redirect(server: WebServer) -> None:
    answer = ask(server, "http://b.test/moved.jpg")
    assert (answer.status, answer.headers["Location"]) == (301, "http://a.test/picture.jpg")


def test_slow_answers_in_the_end(server: WebServer) -> None:
    start = time.monotonic()
    assert ask(server, "http://b.test/slow.jpg").read() == BODY
    assert time.monotonic() - start >= 0.3


def test_busy_refuses_first(server: WebServer) -> None:
    first, second = ask(server, "http://b.test/busy.jpg"), ask(server, "http://b.test/busy.jpg")
    assert (first.status, first.headers["Retry-After"]) == (429, "2")
    assert (second.status, second.read()) == (200, BODY)


def test_drip_and_endless_have_no_stated_end(server: WebServer) -> None:
    for path, size in (("drip", 20), ("endless", 5_000_000)):
        answer = ask(server, f"http://c.test/{path}.jpg")
        assert answer.length is None
        assert len(answer.read(size)) == size
        answer.close()


def test_short_body_ends_early(server: WebServer) -> None:
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(server, "http://c.test/short.jpg").read()
    assert caught.value.partial == BODY[: len(BODY) // 2]


def test_reset_is_no_end(server: WebServer) -> None:
    with pytest.raises(ConnectionResetError):
        ask(server, "http://c.test/reset.jpg").read()


def test_gzip_bomb_unpacks_to_more_than_it_states(server: WebServer) -> None:
    answer = ask(server, "http://c.test/bomb.jpg")
    packed = answer.read()
    assert len(packed) == int(answer.headers["Content-Length"]) < 100_000
    assert len(gzip.decompress(packed)) == 8 * 2**20


def test_a_closed_host_refuses_the_connection(server: WebServer) -> None:
    assert set(server.connect_to) == {f"{h}.test:80" for h in ("a", "b", "c", "closed")}
    address, _, port = server.connect_to["closed.test:80"].partition(":")
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(address, int(port), timeout=10).request("GET", "/")


def test_closing_does_not_wait_for_endless_answers(tmp_path: Path) -> None:
    with WebServer({"http://a.test/drip.jpg": Drip(pause=60)}, tmp_path) as server:
        answer = ask(server, "http://a.test/drip.jpg")
        assert answer.read(1) == b"\xff"
        start = time.monotonic()
    assert time.monotonic() - start < 5


def test_the_command_builds_a_world_says_how_to_reach_it_and_stops_when_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo.server", "--folder", str(tmp_path), "--scenes", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            section = DownloadSection(**said["download"])
            assert section.connect_to["images.scene-world.test:80"] == f"127.0.0.1:{said['port']}"
            url = next(u for u in pq.read_table(said["metadata"]).column("URL").to_pylist() if u and "//photos." in u)
            connection = http.client.HTTPConnection("127.0.0.1", said["port"], timeout=10)
            connection.request("GET", urlsplit(url).path, headers={"Host": urlsplit(url).netloc})
            assert min(Image.open(io.BytesIO(connection.getresponse().read())).size) >= 512
        finally:
            process.terminate()
        assert process.wait(10) == 0
