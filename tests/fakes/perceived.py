"""Shards as `caption` gets them, the stage opened and closed, its engine's processes, and an account of its rows."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from schemas import tables
from stages.base import ShardInput, ShardOutput
from stages.caption import CaptionStage
from stages.caption_section import CaptionSection
from tests.fakes.looking import looking
from tests.fakes.packaged import photograph, uid_of

PRIORS = looking("ocr", "closed_set")
SCHEMAS = {"ocr": tables.OCR_PRIOR, "closed_set": tables.BOXES_PRIOR}


class CountedImages:
    """Original bytes by row number; counts the reads of every row and calls `before` ahead of each."""

    def __init__(self, before: Callable[[int], None] = lambda row: None) -> None:
        self.reads: dict[int, int] = {}
        self.before = before
        self.broken: set[int] = set()

    def read(self, shard: str, offset: int, size: int) -> bytes:
        self.before(offset)
        self.reads[offset] = self.reads.get(offset, 0) + 1
        return b"broken" if offset in self.broken else photograph(offset)[1]


def perceived(
    scratch: Path, alt_texts: list[str | None], images: CountedImages, errors: dict[int, str] | None = None
) -> ShardInput:
    """One row per alt text; `errors` are those of the OCR expert, by row."""
    select, lines, boxes = [], [], []
    for row, alt in enumerate(alt_texts):
        form, content, width, height = photograph(row)
        select.append(
            dict.fromkeys(tables.SELECT.names)
            | {"uid": uid_of(row), "url": f"https://example.org/{row}.jpg", "alt_text": alt, "sha256": "0" * 64}
            | {"format": form, "width": width, "height": height, "orientation": 1, "cluster": 0, "rank": row}
            | {"centroid_cosine": 1.0, "image_shard": "00000", "image_offset": row, "image_bytes": len(content)}
        )
        error = (errors or {}).get(row)
        text = {"text": f"LINE {row}", "score": 0.9, "polygon": [0.1, 0.1, 0.4, 0.1, 0.4, 0.2, 0.1, 0.2]}
        lines.append({"uid": uid_of(row), "lines": [] if error else [text], "error": error})
        box = {"label": "thing", "score": 0.9, "x1": 0.1, "y1": 0.2, "x2": 0.5, "y2": 0.6, "anchor": 0}
        boxes.append({"uid": uid_of(row), "boxes": [box], "error": None})
    priors: dict[str, list[dict[str, Any]]] = {"ocr": lines, "closed_set": boxes[::-1]}  # priors come in any order
    given = {f"perceive.{e}": pa.Table.from_pylist(rows, schema=SCHEMAS[e]) for e, rows in priors.items()}
    given["select"] = pa.Table.from_pylist(select, schema=tables.SELECT)
    return ShardInput("00000", given, images, scratch)


@contextlib.contextmanager
def opened(config: CaptionSection) -> Iterator[CaptionStage]:
    """The stage with an engine of its own; afterwards none of its processes is left."""
    stage = CaptionStage(config, PRIORS)
    others = set(engine_processes())
    stage.open()
    stage.connect()
    assert set(engine_processes()) > others
    try:
        yield stage
    finally:
        own = set(engine_processes()) - others
        stage.close()
        assert not any(process.is_running() for process in own)


def engine_processes() -> list[psutil.Process]:
    """Guardians, servers and all that they started, below this process."""
    guardians = [p for p in psutil.Process().children() if "guardian" in " ".join(p.cmdline())]
    return [*guardians, *(child for guardian in guardians for child in guardian.children(recursive=True))]


def kill_engine(sign: signal.Signals = signal.SIGKILL) -> None:
    """Signal the server's first process, not its guardians and not its children, and wait until none of its threads
    runs: on a busy machine they may answer for some milliseconds more."""
    server = next(p for p in engine_processes() if "guardian" not in " ".join(p.cmdline()))
    server.send_signal(sign)
    while any(state not in "TZX" for state in _thread_states(server.pid)):
        time.sleep(0.001)


def _thread_states(pid: int) -> list[str]:
    """As proc(5) names them: `T` stopped, `Z` and `X` dead; none where the process is gone."""
    try:
        return [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread ended meanwhile: look again
        return ["R"]


def account(output: ShardOutput, rows: int) -> dict[int, str]:
    """What became of each row: its caption, or its reason in brackets. Every row once, captions in input order."""
    tables.check_table(output.rows, tables.CAPTION, "caption")
    places = {uid_of(row): row for row in range(rows)}
    kept = [places[uid] for uid in output.rows.column("uid").to_pylist()]
    assert kept == sorted(kept)
    captions = dict(zip(kept, output.rows.column("caption").to_pylist(), strict=True))
    drops = {places[d.uid]: f"[{d.reason}]" for d in output.drops}
    assert len(captions) + len(output.drops) == rows
    assert sorted({**captions, **drops}) == list(range(rows))
    return captions | drops
