"""What the engine has answered so far: no question of a run is put twice, whatever is killed or decided anew.

An answer belongs to its request, all of it: the engine's identity, how it samples, every word, the picture. So an
attempt takes over what an attempt before it was told, a shard that is captioned by another policy what the shard had
before, and only requests that are new reach the engine.
"""

import json
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fusion.engine import Answer
from stages.base import ShardMemory

KIND = "answers"
SCHEMA = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("request", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("cached_tokens", pa.int32(), nullable=False),
        pa.field("completion_tokens", pa.int32(), nullable=False),
    ]
)


class AnswerBook:
    """Answers by request; those that are new are on disk before they count.

    Several threads may read and write.

    Args:
        memory: of the shard; None keeps the answers for as long as the book is open.

    Attributes:
        taken_over: requests of this attempt that an earlier one had the answer of.
        asked: answers that are new.
    """

    def __init__(self, memory: ShardMemory | None) -> None:
        self._memory = memory
        self._known: dict[tuple[str, str], Answer] = {}
        self._used: set[tuple[str, str]] = set()
        self._journal: IO[str] | None = None
        self._lock = threading.Lock()
        self.taken_over = 0
        self.asked: list[Answer] = []

    def __enter__(self) -> Self:
        if self._memory is not None:
            folder = self._memory.kept()
            self._known = dict(_journalled(sorted(folder.glob("*.jsonl"))))
            self._journal = (folder / f"{uuid.uuid4().hex}.jsonl").open("w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.close()

    @property
    def knows_any(self) -> bool:
        """Whether any answer is known from before."""
        return bool(self._known)

    def look_up(self, uids: list[str]) -> None:
        """Find what the stage has committed about these rows."""
        missing = set(uids)
        for path in self._memory.earlier(KIND) if self._memory is not None else ():
            if not missing:
                break
            try:
                found = [_entry(row) for row in _rows_about(path, missing)]
            except (OSError, pa.ArrowException):  # a damaged file is `verify`'s to tell; here it holds no answer
                continue
            for (uid, request), answer in found:
                self._known.setdefault((uid, request), answer)
            missing -= {uid for (uid, _), _ in found}

    def get(self, uid: str, request: str) -> Answer | None:
        with self._lock:
            answer = self._known.get((uid, request))
            if answer is not None and (uid, request) not in self._used:
                self._used.add((uid, request))
                self.taken_over += 1
            return answer

    def put(self, uid: str, request: str, answer: Answer) -> None:
        """From here on the answer outlives this process."""
        with self._lock:
            self._known[uid, request] = answer
            self._used.add((uid, request))
            self.asked.append(answer)
            if self._journal is not None:
                self._journal.write(json.dumps(_row(uid, request, answer)) + "\n")
                self._journal.flush()

    def save(self, path: Path) -> Path:
        """Every answer about this shard's rows, those of no use this time too: a policy may be taken back."""
        rows = [_row(uid, request, answer) for (uid, request), answer in sorted(self._known.items())]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")
        return path


def _row(uid: str, request: str, answer: Answer) -> dict[str, Any]:
    return {"uid": uid, "request": request, **asdict(answer)}


def _entry(row: dict[str, Any]) -> tuple[tuple[str, str], Answer]:
    """Raises KeyError or TypeError where the row is none of ours."""
    rest = dict(row)
    return (rest.pop("uid"), rest.pop("request")), Answer(**rest)


def _journalled(paths: Iterable[Path]) -> Iterator[tuple[tuple[str, str], Answer]]:
    """What earlier attempts wrote down; a line that a kill cut off is passed over."""
    for path in paths:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                yield _entry(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue


def _rows_about(path: Path, uids: set[str]) -> list[dict[str, Any]]:
    """Answers about these rows; most files hold none of them, and then only their uids are read."""
    mask = pc.is_in(pq.read_table(path, columns=["uid"]).column("uid"), value_set=pa.array(sorted(uids), pa.string()))
    if not pc.any(mask).as_py():
        return []
    rows: list[dict[str, Any]] = pq.read_table(path).filter(mask).to_pylist()
    return rows
