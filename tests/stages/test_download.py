"""The download stage against a web that misbehaves: every row ends once, with the right reason, in bounded time."""

import hashlib
import io
import struct
import tarfile
import threading
import time
import urllib.request
import zlib

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pydantic import ValidationError
from skimage import data as photographs

from schemas.errors import SetupError
from schemas.ledger import Reason
from schemas.pictures import decode_rgb
from schemas.tables import DOWNLOAD, INGEST, check_table
from stages.base import ShardInput
from stages.download import DownloadSection, DownloadStage
from stages.fetch.errors import FetchRefused
from stages.fetch.health import HostHealth
from stages.fetch.inspector import EXTENSIONS
from tests.fakes.hostile_server import answer, certificate, raw, redirect, serve
from tests.photographs import encoded

HOST = "photos.test"


@pytest.fixture(scope="module")
def photo():
    return Image.fromarray(photographs.astronaut())  # 512 x 512


@pytest.fixture(scope="module")
def jpeg(photo):
    return encoded(photo, "JPEG", quality=90)


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture
def download(tmp_path):
    """download(server, [url or path, ...], **config) -> (rows by url, drops by url, output)"""
    runs = iter(range(100))

    def call(server, urls, **config):
        urls = [url if ":" in url else f"http://{HOST}{url}" for url in urls]
        section = DownloadSection(
            **{
                "allow_hosts": [HOST],
                "connect_to": {
                    f"{HOST}:80": server.place,
                    f"{HOST}:443": server.place,
                    "inside.test:80": server.place,
                },
                "timeout_s": 5,
                "retries": 0,
                "robots": False,
            }
            | config
        )
        scratch = tmp_path / str(next(runs))
        scratch.mkdir(exist_ok=True)
        stage = DownloadStage(section)
        stage.open()
        output = stage.process(ShardInput("00000", {"ingest": ingest(urls)}, None, scratch))
        stage.close()
        check_table(output.rows, DOWNLOAD, "download")
        rows = {row["url"].removeprefix(f"http://{HOST}"): row for row in output.rows.to_pylist()}
        drops = {drop.url.removeprefix(f"http://{HOST}"): drop for drop in output.drops}
        assert len(rows) + len(drops) == len(output.rows) + len(output.drops) == len(urls)
        return rows, drops, output

    return call


def ingest(urls):
    columns = {name: [None] * len(urls) for name in INGEST.names}
    columns |= {
        "uid": [hashlib.md5(url.encode()).hexdigest() for url in urls],
        "url": urls,
        "source": ["s"] * len(urls),
        "source_row": list(range(len(urls))),
    }
    return pa.table(columns, schema=INGEST)


def reason_of(download, server, path, **config):
    rows, drops, _ = download(server, [path], **config)
    assert not rows
    return drops[path].reason, drops[path].detail


def test_images_are_kept_byte_for_byte_in_row_order(server, download, photo):
    files = {
        "/a.png": encoded(photo, "PNG"),
        "/b": encoded(photo, "JPEG"),
        "/c.jpg": encoded(photo, "WEBP", lossless=True),
        "/d": encoded(photo, "GIF"),
    }
    server.routes = {path: answer(body) for path, body in files.items()}
    # The first row comes last over the wire.
    server.routes["/a.png"] = raw(
        b"HTTP/1.1 200 OK\r\n\r\n" + files["/a.png"][:1000], b"", files["/a.png"][1000:], pause=0.2
    )
    rows, drops, output = download(server, list(files))
    assert not drops
    assert list(rows) == list(files)
    assert [row["format"] for row in rows.values()] == ["png", "jpeg", "webp", "gif"]
    archive = output.files["images"].read_bytes()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = tar.getmembers()
        for member, (path, row) in zip(members, rows.items(), strict=True):
            assert member.name == f"{row['uid']}.{EXTENSIONS[row['format']]}"
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert archive[row["image_offset"] :][: row["image_bytes"]] == files[path] == tar.extractfile(member).read()
            assert row["sha256"] == hashlib.sha256(files[path]).hexdigest()
            assert (row["width"], row["height"], row["orientation"]) == (512, 512, 1)
    assert output.metrics == {"bytes": sum(map(len, files.values())), "requests": 4, "private_requests": 4}
    _, _, again = download(server, list(files))
    assert again.files["images"].read_bytes() == archive
    assert again.rows == output.rows


def test_perceptual_hash_follows_the_picture(server, download, photo):
    other = Image.fromarray(photographs.coffee()).resize((600, 512))
    exif = Image.Exif()
    exif[0x0112] = 6
    server.routes = {
        "/a": answer(encoded(photo, "JPEG", quality=95)),
        "/reencoded": answer(encoded(photo.resize((460, 460)), "JPEG", quality=50)),
        "/turned": answer(encoded(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)),
        "/other": answer(encoded(other, "JPEG")),
    }
    rows, drops, _ = download(server, list(server.routes))
    assert not drops
    distance = {path: (row["phash"] ^ rows["/a"]["phash"]).bit_count() for path, row in rows.items()}
    assert distance["/reencoded"] <= 4 and distance["/turned"] <= 4 and distance["/other"] > 12


def test_size_is_that_of_the_upright_picture(server, download, photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    server.routes["/x"] = answer(encoded(photo.resize((800, 500)), "JPEG", exif=exif))
    rows, _, output = download(server, ["/x"])
    row = rows["/x"]
    assert (row["width"], row["height"], row["orientation"]) == (500, 800, 6)
    body = output.files["images"].read_bytes()[row["image_offset"] :][: row["image_bytes"]]
    assert decode_rgb(body).size == (500, 800)


def test_no_rows(server, download):
    _, _, output = download(server, [])
    assert output.rows.num_rows == 0
    with tarfile.open(output.files["images"]) as tar:
        assert tar.getmembers() == []


def png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_bodies_that_are_no_usable_image(server, download, photo, jpeg, capfd):
    frames = [Image.fromarray(np.full((500, 500), 50 * v, np.uint8)) for v in range(5)]
    small = encoded(photo.resize((900, 447)), "JPEG")
    server.routes = {
        "/bomb": answer(png_header(20_000, 9_000)),
        "/bigger-bomb": answer(png_header(200_000, 200_000)),
        "/truncated": answer(jpeg[: len(jpeg) // 2]),
        "/html": answer(b"<!DOCTYPE html><html>sorry</html>"),
        "/empty": answer(b""),
        "/tiff": answer(encoded(photo, "TIFF")),
        "/small": answer(small),
        "/gif": answer(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])),
        "/webp": answer(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])),
        "/apng": answer(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])),
    }
    rows, drops, _ = download(server, list(server.routes))
    assert not rows
    assert {path: drop.reason for path, drop in drops.items()} == {
        "/bomb": Reason.TOO_MANY_PIXELS,
        "/bigger-bomb": Reason.TOO_MANY_PIXELS,
        "/truncated": Reason.DECODE,
        "/html": Reason.NOT_AN_IMAGE,
        "/empty": Reason.NOT_AN_IMAGE,
        "/tiff": Reason.NOT_AN_IMAGE,
        "/small": Reason.TOO_SMALL,
        "/gif": Reason.TOO_MANY_FRAMES,
        "/webp": Reason.TOO_MANY_FRAMES,
        "/apng": Reason.TOO_MANY_FRAMES,
    }
    rows, _, _ = download(server, ["/gif", "/webp", "/apng", "/small"], max_frames=5, min_short_edge=447)
    assert len(rows) == 4
    assert capfd.readouterr() == ("", "")


def test_answers_that_are_no_image(server, download, jpeg):
    server.routes = {
        "/403": answer(b"no", status=403, X_Robots_Tag="noindex"),
        "/206": answer(jpeg, status=206),
        "/loop": redirect("/loop"),
        "/file": redirect("file:///etc/passwd"),
        "/inwards": redirect(f"http://{server.place}/image"),
        "/named-inwards": redirect("http://inside.test/image"),
        "/long": answer(b"x" * 3000),
        "/short": answer(jpeg, Content_Length=str(len(jpeg) + 1)),
        "/short-chunk": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFF\r\nabc"),
        "/packed": answer(zlib.compress(jpeg), Content_Encoding="gzip"),
        "/noise": raw(b"\x00\x01\x02 hello\r\n\r\n"),
        "/silence": raw(b""),
        "/noai": answer(jpeg, X_Robots_Tag="noai"),
        "/tdm": answer(jpeg, tdm_reservation="1"),
        "/noai-redirect": answer(b"", 302, Location="/image", X_Robots_Tag="noindex"),
        "/image": answer(jpeg),
    }
    urls = [*server.routes, "/missing", f"http://{server.place}/image", "http://127.1:9/x", "http://no.invalid/x"]
    urls += ["file:///etc/passwd", "http://u:p@photos.test/"]
    rows, drops, _ = download(server, urls, max_bytes=2000, formats=["jpeg"])
    assert not rows
    assert {path: drop.reason for path, drop in drops.items()} == {
        "/403": Reason.HTTP_STATUS,
        "/206": Reason.HTTP_STATUS,
        "/loop": Reason.REDIRECTS,
        "/file": Reason.REFUSED_SCHEME,
        "/inwards": Reason.REFUSED_ADDRESS,
        "/named-inwards": Reason.REFUSED_ADDRESS,
        "/long": Reason.TOO_MANY_BYTES,
        "/short": Reason.TOO_MANY_BYTES,
        "/short-chunk": Reason.TRUNCATED_BODY,
        "/packed": Reason.FETCH,
        "/noise": Reason.FETCH,
        "/silence": Reason.CONNECT,
        "/noai": Reason.OPTED_OUT,
        "/tdm": Reason.OPTED_OUT,
        "/noai-redirect": Reason.OPTED_OUT,
        "/image": Reason.TOO_MANY_BYTES,
        "/missing": Reason.HTTP_STATUS,
        f"http://{server.place}/image": Reason.REFUSED_ADDRESS,
        "http://127.1:9/x": Reason.REFUSED_ADDRESS,
        "http://no.invalid/x": Reason.DNS,
        "file:///etc/passwd": Reason.REFUSED_SCHEME,
        "http://u:p@photos.test/": Reason.BAD_URL,
    }
    assert drops["/missing"].detail == "404 Not Found"
    # Of all that pointed inwards, nothing was asked: /image was asked for by its own row alone.
    assert server.paths().count("/image") == 1
    assert reason_of(download, server, "/short")[0] is Reason.TRUNCATED_BODY


def test_an_endless_body_stops_at_the_cap(server, download):
    server.routes["/endless"] = raw(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, times=10_000)
    assert reason_of(download, server, "/endless", max_bytes=10**6)[0] is Reason.TOO_MANY_BYTES


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1000),
        (b"HTTP/1.1 200 OK\r\n", *[b"X-More: y\r\n"] * 90),
        tuple(b"HTTP/1.1 200 OK and so on and on"[i : i + 1] for i in range(31)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 1000),
        (b"",) * 1000,
    ],
    ids=["body", "headers", "status", "chunks", "silent"],
)
def test_a_drip_meets_the_deadline(server, download, pieces):
    server.routes["/drip"] = raw(*pieces, pause=0.1)
    start = time.monotonic()
    assert reason_of(download, server, "/drip", timeout_s=0.7)[0] is Reason.TIMEOUT
    assert time.monotonic() - start < 15


def test_slow_redirects_share_one_deadline(server, download):
    for i in range(6):
        server.routes[f"/{i}"] = raw(b"", f"HTTP/1.1 302 Found\r\nLocation: /{i + 1}\r\n\r\n".encode(), pause=0.3)
    assert reason_of(download, server, "/0", timeout_s=0.8)[0] is Reason.TIMEOUT
    assert "/3" not in server.paths()


def test_a_slow_resolver_does_not_hold_the_shard(server, download, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [never.wait(30)][1:])
    start = time.monotonic()
    reason, detail = reason_of(download, server, "http://slow.test/x", timeout_s=0.5)
    assert reason is Reason.DNS and "did not answer" in detail
    never.set()
    assert time.monotonic() - start < 15


def test_a_name_is_looked_up_once_and_only_its_public_addresses_are_used(server, download, jpeg, monkeypatch):
    answers = {"mixed.test": ["169.254.169.254", "10.0.0.1"], "rebind.test": ["127.0.0.1"]}
    asked = []

    def look_up(host, *_, **__):
        asked.append(host)
        # A second look-up would give another address than the one that was checked.
        return [(2, 1, 6, "", (address, 0)) for address in (answers[host] if asked.count(host) == 1 else ["10.0.0.1"])]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    port = server.server_address[1]
    server.routes = {"/a": redirect("/b"), "/b": answer(jpeg), "/c": answer(jpeg)}
    urls = [f"http://rebind.test:{port}/a", f"http://rebind.test:{port}/c", "http://mixed.test/x"]
    rows, drops, _ = download(server, urls, allow_hosts=["rebind.test"])
    assert set(rows) == set(urls[:2])
    assert drops[urls[2]].reason is Reason.REFUSED_ADDRESS
    assert sorted(asked) == ["mixed.test", "rebind.test"]


def test_redirects_are_followed_and_environment_proxies_are_not(server, download, jpeg, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server.routes = {"/a": redirect("b", 301), "/b": redirect(f"http://{HOST}/c", 307), "/c": answer(jpeg)}
    rows, _, _ = download(server, ["/a"], user_agent="densefusion/test", contact_url="https://us.test/bot")
    assert "/a" in rows and server.paths() == ["/a", "/b", "/c"]
    for _, headers in server.seen:
        assert headers["User-Agent"] == "densefusion/test (+https://us.test/bot)"
        assert headers["Accept-Encoding"] == "identity" and headers["Host"] == HOST


def test_retries_wait_as_told(server, download, jpeg):
    times = []

    def busy(handler):
        times.append(time.monotonic())
        first = answer(b"", status=429, Retry_After="1")
        (first if len(times) == 1 else answer(jpeg))(handler)

    server.routes["/busy"] = busy
    rows, _, _ = download(server, ["/busy"], retries=2)
    assert "/busy" in rows and len(times) == 2 and times[1] - times[0] > 0.95

    server.routes["/later"] = answer(b"", status=503, Retry_After="3600")
    assert reason_of(download, server, "/later", retries=2)[0] is Reason.HTTP_STATUS
    assert server.paths().count("/later") == 1

    server.routes["/gone"] = answer(b"", status=410)
    assert reason_of(download, server, "/gone", retries=2) == (Reason.HTTP_STATUS, "410 Gone")
    assert server.paths().count("/gone") == 1


def test_one_host_sees_few_requests_at_once(server, download, jpeg):
    lock, under_way, most = threading.Lock(), set(), []

    def slow(handler):
        with lock:
            under_way.add(handler)
            most.append(len(under_way))
        time.sleep(0.3)
        with lock:  # before the answer: a client that has read it may ask again while this thread still winds up
            under_way.remove(handler)
        answer(jpeg)(handler)

    server.routes = {f"/{i}": slow for i in range(12)}
    rows, _, _ = download(server, list(server.routes), per_host_concurrency=3, timeout_s=1)
    assert len(rows) == 12, "waiting for a slot is not charged to the deadline"
    assert max(most) == 3


def test_requests_to_one_host_keep_their_distance(server, download, jpeg):
    arrivals = []

    def note(handler):
        arrivals.append(time.monotonic())
        answer(jpeg)(handler)

    server.routes = {f"/{i}": note for i in range(4)}
    download(server, list(server.routes), per_host_delay_s=0.2)
    assert max(arrivals) - min(arrivals) > 0.4


def test_robots_txt_is_asked_once_and_obeyed(server, download, jpeg):
    server.routes = {"/robots.txt": answer(b"User-agent: *\nDisallow: /private")}
    server.routes |= {path: answer(jpeg) for path in ("/a", "/b", "/private/c")}
    rows, drops, _ = download(server, ["/a", "/b", "/private/c"], robots=True)
    assert set(rows) == {"/a", "/b"}
    assert drops["/private/c"].reason is Reason.REFUSED_ROBOTS
    assert server.paths().count("/robots.txt") == 1 and "/private/c" not in server.paths()


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        (answer(b"", status=404), None),
        (answer(b"User-agent: *\nDisallow: /", status=403), None),
        (redirect("/robots.txt"), None),
        (answer(b"", status=503), Reason.REFUSED_ROBOTS),
        (raw(b"", pause=9), Reason.TIMEOUT),
    ],
    ids=["missing", "forbidden", "loop", "unavailable", "hangs"],
)
def test_without_a_robots_txt(server, download, jpeg, route, reason):
    server.routes = {"/robots.txt": route} | {f"/{i}": answer(jpeg) for i in range(8)}
    rows, drops, _ = download(server, [f"/{i}" for i in range(8)], robots=True, timeout_s=1, per_host_concurrency=1)
    assert (len(rows), {drop.reason for drop in drops.values()}) == ((8, set()) if reason is None else (0, {reason}))
    asked = [path for path in server.paths() if path != "/robots.txt"]
    assert len(asked) == len(rows) and server.paths().count("/robots.txt") <= 6


def test_a_host_that_has_stopped_answering_is_left_alone(server, download, jpeg):
    server.routes = {f"/{i}": raw(b"", pause=5) for i in range(20)}
    rows, drops, _ = download(
        server, [f"/{i}" for i in range(20)], timeout_s=0.3, host_failures=3, per_host_concurrency=1
    )
    assert not rows and {drop.reason for drop in drops.values()} == {Reason.TIMEOUT}
    assert len(server.seen) == 3 and sum("not asked" in drop.detail for drop in drops.values()) == 17


def test_an_answer_makes_a_host_healthy_again():
    health = HostHealth(2)
    silent = FetchRefused(Reason.TIMEOUT)
    for answered in (None, FetchRefused(Reason.HTTP_STATUS)):
        health.note("a.test", silent)
        health.note("a.test", answered)
    health.note("a.test", silent)
    health.check("a.test")
    health.note("a.test", silent)
    health.check("b.test")
    with pytest.raises(FetchRefused, match="2 times"):
        health.check("a.test")


def test_no_root_certificates(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(SetupError, match="ca-certificates"):
        DownloadStage(DownloadSection()).open()


def test_certificates(tmp_path, download, jpeg, monkeypatch):
    with serve(certificate(tmp_path, HOST)) as server:
        server.routes["/x"] = answer(jpeg)
        url = f"https://{HOST}/x"
        reason, detail = reason_of(download, server, url)
        assert reason is Reason.TLS and "self" in detail
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        rows, _, _ = download(server, [url])
        assert url in rows
        other = "https://other.test/x"
        places = {"other.test:443": server.place}
        assert reason_of(download, server, other, connect_to=places, allow_hosts=["other.test"])[0] is Reason.TLS


def test_plain_http_where_tls_was_asked_for(server, download):
    assert reason_of(download, server, f"https://{HOST}/x")[0] is Reason.TLS


def test_nothing_listens(server, download):
    places = {f"{HOST}:80": "127.0.0.1:1"}
    assert reason_of(download, server, "/x", connect_to=places)[0] is Reason.CONNECT


def test_urlopen_is_given_back(server, download, jpeg):
    before = urllib.request._opener
    server.routes["/a"] = answer(jpeg)
    download(server, ["/a"])
    assert urllib.request._opener is before


def test_a_full_disk_fails_the_shard(server, download, jpeg, tmp_path):
    """img2dataset swallows what its writer raises; the row must not vanish with it."""
    server.routes["/a"] = answer(jpeg)
    scratch = tmp_path / "0"
    scratch.mkdir()
    (scratch / "spool").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        download(server, ["/a"])


def test_only_what_decides_the_rows_is_in_the_fingerprint():
    decides = set(DownloadSection().decides())
    assert not decides & {"threads", "per_host_concurrency", "per_host_delay_s", "connect_to", "resources"}
    assert {"timeout_s", "retries", "robots", "allow_hosts", "min_short_edge", "user_agent"} <= decides


@pytest.mark.parametrize(
    "wrong",
    [
        {"formats": ["eps"]},
        {"connect_to": {"a.test": "127.0.0.1:1"}},
        {"connect_to": {"a.test:80": "localhost:1"}},
        {"opt_out_headers": ["noai"]},
        {"user_agent": "x\r\nCookie: y"},
        {"timeout_s": 0},
    ],
)
def test_wrong_config_is_refused(wrong):
    with pytest.raises(ValidationError):
        DownloadSection(**wrong)
