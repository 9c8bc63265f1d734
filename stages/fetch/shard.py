"""img2dataset's own downloader over one shard: our opener under it, our inspector and our spool in it."""

import os
from collections import defaultdict
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import pyarrow as pa

from stages.fetch.errors import FetchRefused
from stages.fetch.inspector import Inspected, Inspector
from stages.fetch.opener import GuardedOpener, installed
from stages.fetch.spool import Spool


def img2dataset_downloader() -> Any:
    """The class `img2dataset.downloader.Downloader`; the first import takes seconds."""
    # It brings albumentations along, which asks PyPI for its newest version unless told not to.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    from img2dataset.downloader import Downloader

    return Downloader


def download_rows(
    uids: list[str],
    urls: list[str],
    *,
    opener: GuardedOpener,
    inspector: Inspector,
    spool: Spool,
    threads: int,
    folder: Path,
) -> None:
    """Fetch every URL; every uid then has an outcome in the spool.

    `urlopen` of the whole process goes through `opener` meanwhile.

    Args:
        folder: an empty one, for the files that img2dataset reads its rows from and writes its statistics to.
    """
    order = spread_hosts(urls)
    rows = pa.table({"url": [urls[i] for i in order], "uid": [uids[i] for i in order]})
    table = folder / "rows.arrow"
    with pa.ipc.new_file(str(table), rows.schema) as writer:
        writer.write_table(rows)
    downloader = img2dataset_downloader()(
        sample_writer_class=lambda *_: spool,
        resizer=_Resizer(inspector),
        thread_count=threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(folder),
        column_list=["url", "uid"],
        timeout=None,
        # Only gives the width of img2dataset's own keys, by a logarithm that must not be of 0.
        number_sample_per_shard=max(len(urls), 1),
        oom_shard_count=1,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="",
        retries=0,
        user_agent_token=None,
        disallowed_header_directives=None,
    )
    with installed(opener):
        downloader.download_shard((0, str(table)))


def spread_hosts(urls: list[str]) -> list[int]:
    """An order of the URLs that takes hosts in turn, so that threads do not queue up for one host's slots."""
    turns: dict[str, int] = defaultdict(int)
    keys = []
    for url in urls:
        try:
            host = urlsplit(url).netloc.lower()
        except ValueError:
            host = ""
        keys.append(turns[host])
        turns[host] += 1
    return sorted(range(len(urls)), key=keys.__getitem__)


class _Resizer:
    """img2dataset's place for a resizer: looks at a body and hands it on as it is."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector

    def __call__(
        self, stream: IO[bytes], boxes: object
    ) -> tuple[tuple[bytes, Inspected] | None, int | None, int | None, int | None, int | None, str | None]:
        """(sample, width, height, original width, original height, error message)"""
        body = stream.read()
        try:
            inspected = self._inspector.inspect(body)
        except FetchRefused as refused:
            return None, None, None, None, None, str(refused)
        width, height = inspected.width, inspected.height
        return (body, inspected), width, height, width, height, None
