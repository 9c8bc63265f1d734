"""What the guarded opener and the download stage cost over a bare pool of urllib threads.

    python -m benchmarks.fetch [--json] [--images N] [--rounds N]

All sides fetch the same URLs, in the same order, with as many threads, from one loopback server.
"""

import contextlib
import itertools
import math
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa

from benchmarks.answer import show
from benchmarks.command import parser
from benchmarks.comparison import Comparison, compare
from benchmarks.machine import machine
from benchmarks.pictures import MemoryImages, scene_jpegs
from benchmarks.web import web
from demo.behaviours import Serve
from schemas.tables import INGEST
from stages.base import ShardInput, ShardOutput, shard_name
from stages.download import DownloadSection, DownloadStage, guarded_opener
from stages.fetch.inspector import Inspected, Inspector

T = TypeVar("T")


def measure(images: int, rounds: int) -> dict[str, Any]:
    """Both comparisons, as `show` takes them.

    Args:
        images: URLs fetched by each side in each round.
    """
    with tempfile.TemporaryDirectory() as name, _pictures(Path(name), images) as (urls, total_bytes, section):
        opener = compare(
            lambda: _opener_side(section, urls),
            lambda: _bare_side(section, urls),
            lambda ours, theirs: ours == theirs,
            rounds,
        )
        scratches = (Path(name) / f"scratch{number}" for number in itertools.count())
        stage = compare(
            lambda: _stage_side(section, urls, next(scratches)),
            lambda: _bare_inspected_side(section, urls),
            _same_images,
            rounds,
        )
    bare = "a bare urllib thread pool"
    return {
        "benchmark": "fetch",
        "machine": machine("img2dataset", "pillow", "ImageHash", "pyarrow"),
        "setting": {
            "images": images,
            "bytes": total_bytes,
            "threads": section.threads,
            "hosts": len(section.allow_hosts),
            "robots": section.robots,
            "rounds": rounds,
        },
        "comparisons": [
            Comparison("the guarded opener", bare, images, "images", opener).as_json(),
            Comparison("the download stage", f"{bare} and the same inspection", images, "images", stage).as_json(),
        ],
    }


@contextlib.contextmanager
def _pictures(folder: Path, images: int) -> Iterator[tuple[list[str], int, DownloadSection]]:
    """Served URLs, the bytes behind them, and a download section of defaults that reaches them.

    There are as many hosts as keep every thread busy under the default politeness; URLs take them in turn.
    """
    defaults = DownloadSection()
    hosts = [f"h{i}.test" for i in range(math.ceil(defaults.threads / defaults.per_host_concurrency))]
    pictures = scene_jpegs(images)
    for i, picture in enumerate(pictures):
        (folder / f"{i}.jpg").write_bytes(picture)
    routes = {
        f"http://{host}/{i}.jpg": Serve(file=f"{i % len(pictures)}.jpg")
        for i, host in zip(range(images), itertools.cycle(hosts))
    }
    total_bytes = sum(len(pictures[i % len(pictures)]) for i in range(images))
    with web(routes, folder) as connect_to:
        yield list(routes), total_bytes, DownloadSection(allow_hosts=hosts, connect_to=connect_to)


def _opener_side(section: DownloadSection, urls: list[str]) -> Callable[[], list[bytes]]:
    opener = guarded_opener(section)
    return lambda: _pooled(section.threads, lambda url: opener.fetch(url).body, urls)


def _bare_side(section: DownloadSection, urls: list[str]) -> Callable[[], list[bytes]]:
    get = _bare_get(section)
    return lambda: _pooled(section.threads, get, urls)


def _bare_inspected_side(section: DownloadSection, urls: list[str]) -> Callable[[], list[Inspected]]:
    get = _bare_get(section)
    inspector = Inspector(section.formats, section.max_pixels, section.max_frames, section.min_short_edge)
    return lambda: _pooled(section.threads, lambda url: inspector.inspect(get(url)), urls)


def _stage_side(section: DownloadSection, urls: list[str], scratch: Path) -> Callable[[], ShardOutput]:
    """A stage of its own, so that robots.txt is asked for anew."""
    scratch.mkdir()
    stage = DownloadStage(section)
    stage.open()
    rows = [{"uid": f"{i:032x}", "url": url} for i, url in enumerate(urls)]
    shard = ShardInput(shard_name(0), {"ingest": pa.Table.from_pylist(rows, schema=INGEST)}, MemoryImages(b""), scratch)
    return lambda: stage.process(shard)


def _same_images(output: ShardOutput, inspected: list[Inspected]) -> bool:
    return output.rows.column("sha256").to_pylist() == [image.sha256 for image in inspected]


def _bare_get(section: DownloadSection) -> Callable[[str], bytes]:
    """One GET with urllib: no checks, no limits but a time-out, environment proxies out of play."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(url: str) -> bytes:
        parts = urlsplit(url)
        place = section.connect_to[f"{parts.netloc}:80"]
        request = urllib.request.Request(f"http://{place}{parts.path}", headers={"Host": parts.netloc})
        with opener.open(request, timeout=section.timeout_s) as response:
            return response.read()

    return get


def _pooled(threads: int, work: Callable[[str], T], urls: Sequence[str]) -> list[T]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, urls))


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser("fetch", "The guarded opener and the download stage against bare urllib threads.", 300).parse_args(
        arguments
    )
    show(measure(given.images, given.rounds), given.json)


if __name__ == "__main__":
    main()
