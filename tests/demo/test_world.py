"""The little web: the same everywhere, and each row's expectation true of what its URL really answers."""

import hashlib
import io
import math
import shutil
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo.planting import plant
from demo.server import WorldServer
from demo.world import World, build_world
from schemas.ledger import Reason
from schemas.pictures import decode_rgb
from stages.base import ShardInput
from stages.download import DownloadSection, DownloadStage
from stages.ingest import IngestSection, IngestStage

SCENES = 12


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"), SCENES, seed=3)


def _digests(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_an_unfinished_world_is_built_again_as_it_was(world: World, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(world.folder, broken)
    (broken / "world.json").unlink()
    next((broken / "files").glob("*.jpeg")).write_bytes(b"half")
    (broken / "files" / "stray.jpeg").write_bytes(b"of an older world")
    build_world(broken, SCENES, seed=3)
    assert _digests(broken) == _digests(world.folder)


def test_a_finished_world_is_left_alone(world: World) -> None:
    before = {p: p.stat().st_mtime_ns for p in world.folder.rglob("*")}
    again = build_world(world.folder, SCENES, seed=3)
    assert {p: p.stat().st_mtime_ns for p in world.folder.rglob("*")} == before
    assert again.routes == world.routes
    assert again.expected == world.expected


def test_another_seed_is_another_world(world: World) -> None:
    assert not {e.scene for e in plant(SCENES, 4).entries if e.scene} & {e.scene for e in world.entries}


def test_metadata_is_laions(world: World) -> None:
    table = pq.read_table(world.metadata)
    assert table.column_names[:4] == ["URL", "TEXT", "WIDTH", "HEIGHT"]
    assert table.column("URL").to_pylist() == [e.url for e in world.entries]
    widths = table.column("WIDTH").to_pylist()
    assert None in widths and any(w is not None and math.isnan(w) for w in widths)
    assert world.expected.keys() == set(range(table.num_rows))
    duplicates = [e.url for e in world.entries if e.expected is Reason.DUPLICATE_URL]
    counts = Counter(e.url for e in world.entries)
    assert sorted(duplicates) == sorted(url for url, n in counts.items() if n == 2)


def test_every_kind_of_fault_is_planted(world: World) -> None:
    stated = ["no_url", "bad_url", "duplicate_url", "stated_size", "unsafe", "watermark"]
    refused = ["refused_scheme", "refused_address", "refused_robots", "opted_out"]
    network = ["dns", "connect", "timeout", "redirects", "http_status", "truncated_body", "too_many_bytes"]
    content = ["too_many_pixels", "too_many_frames", "not_an_image", "decode", "too_small"]
    assert set(world.expected.values()) == {None, *map(Reason, stated + refused + network + content)}
    assert {e.copied for e in world.entries} == {None, "reencoded", "resized", "watermarked", "cropped", "same_bytes"}


def test_good_urls_serve_their_scene(world: World) -> None:
    with WorldServer(world) as server:
        opener = urllib.request.build_opener(_ToLoopback(server.port))
        for entry in world.entries:
            if entry.expected is None:
                assert entry.url is not None and entry.scene is not None
                data = _patiently(opener, entry.url)
                picture = decode_rgb(data)
                truth = world.truth[entry.url]
                assert truth.seed == entry.scene
                assert entry.text
                if entry.copied in (None, "reencoded", "watermarked", "same_bytes"):
                    assert picture.size == (truth.width, truth.height)
                else:
                    assert 448 <= min(picture.size) < min(truth.width, truth.height)


def test_bad_urls_answer_what_is_expected_of_them(world: World) -> None:
    by_reason: dict[Reason, list[str]] = {}
    for entry in world.entries:
        if entry.expected is not None and entry.url is not None:
            by_reason.setdefault(entry.expected, []).append(entry.url)
    with WorldServer(world) as server:
        opener = urllib.request.build_opener(_ToLoopback(server.port))
        for url in by_reason[Reason.HTTP_STATUS]:
            with pytest.raises(urllib.error.HTTPError):
                opener.open(url, timeout=10)
        for url in by_reason[Reason.NOT_AN_IMAGE]:
            with pytest.raises(Image.UnidentifiedImageError):
                Image.open(io.BytesIO(opener.open(url, timeout=10).read()))
        for url in by_reason[Reason.DECODE]:
            with pytest.raises(ValueError):
                decode_rgb(opener.open(url, timeout=10).read())
        for url in by_reason[Reason.TOO_SMALL]:
            assert min(decode_rgb(opener.open(url, timeout=10).read()).size) < 448
        for url in by_reason[Reason.OPTED_OUT]:
            headers = opener.open(url, timeout=10).headers
            stated = {headers["TDM-Reservation"], *(headers["X-Robots-Tag"] or "").split(", ")}
            assert stated & {"1", "noai", "noimageai"}
        for url in by_reason[Reason.DNS]:
            assert f"{urlsplit(url).hostname}:80" not in server.connect_to


def test_ingest_and_download_do_with_every_row_what_the_world_expects(world: World, tmp_path: Path) -> None:
    ingest = IngestStage(IngestSection(sources=[str(world.metadata)], max_punsafe=0.5, max_pwatermark=0.8))
    ((shard, admitted),) = ingest.process(NoShards())
    with WorldServer(world) as server:
        section = DownloadSection(allow_hosts=server.hosts, connect_to=server.connect_to, timeout_s=5)
        download = DownloadStage(section)
        download.open()
        try:
            fetched = download.process(ShardInput(shard, {"ingest": admitted.rows}, NoImages(), tmp_path))
        finally:
            download.close()
        asked = {urlsplit(r.url).path for r in server.requests}
    outcomes = [(d.url, d.reason) for d in admitted.drops + fetched.drops]
    outcomes += [(url, None) for url in fetched.rows.column("url").to_pylist()]
    assert Counter(outcomes) == Counter((e.url or "", e.expected) for e in world.entries)
    assert not any(path.startswith(("/private/", "/adult/", "/stock/", "/thumbs/", "/admin")) for path in asked)


class NoShards:
    """Ingest reads files, no stage comes before it."""

    scratch = Path()

    def shards(self, stage: str) -> list[str]:
        raise KeyError(stage)

    def table(self, stage: str, shard: str, columns: list[str] | None = None) -> pa.Table:
        raise KeyError(stage)

    def file(self, stage: str, shard: str, kind: str) -> bytes:
        raise KeyError(stage)


class NoImages:
    def read(self, shard: str, offset: int, size: int) -> bytes:
        raise KeyError(shard)


class _ToLoopback(urllib.request.HTTPHandler):
    """Connects to the server whatever the host, which stays in the Host header."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def http_open(self, request: urllib.request.Request) -> object:
        request.add_unredirected_header("Host", request.host)
        request.host = f"127.0.0.1:{self._port}"
        return super().http_open(request)


def _patiently(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    """The body, at the second try where the server asks for one."""
    try:
        return opener.open(url, timeout=10).read()
    except urllib.error.HTTPError as error:
        if error.code != 429:
            raise
        return opener.open(url, timeout=10).read()
