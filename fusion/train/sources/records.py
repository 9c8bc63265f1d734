"""Records of a JSON array or a JSONL file, read one at a time."""

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fusion.train.sources.base import BadRowError
from schemas.errors import RequestError

_CHUNK = 8 << 20
_MAX_RECORD = 64 << 20


class Records:
    """An index of a file: where each record begins and ends.

    Args:
        path: a file that holds one JSON array, or one JSON value a line.
        measure: words of a record, below zero without a picture; it may raise BadRowError, which counts as no words.

    Attributes:
        words: int32 (records,), what `measure` said.
        bytes: size of the file.

    Raises:
        RequestError: the file is missing, has no records, or is neither.
    """

    def __init__(self, path: Path, measure: Callable[[dict[str, Any]], int]) -> None:
        if not path.is_file():
            raise RequestError(f"There is no file {path} to learn from (data.sources.path).")
        self.path, self.bytes = path, path.stat().st_size
        starts, ends, words = array("q"), array("q"), array("i")
        seen_object = False
        try:
            for start, end, value in _scan(path):
                starts.append(start)
                ends.append(end)
                seen_object |= isinstance(value, dict)
                words.append(_measured(measure, value))
        except UnicodeDecodeError as error:
            raise RequestError(f"{path} is not UTF-8: {error}. Convert it, or leave it out.") from None
        if not seen_object:
            raise RequestError(f"{path} holds no JSON objects: neither an array of them nor one a line.")
        self._starts, self._ends = np.array(starts), np.array(ends)
        self.words = np.array(words, np.int32)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Raises BadRowError for what is no JSON object."""
        start, end = int(self._starts[row]), int(self._ends[row])
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(end - start)
        try:
            value = json.loads(data)
        except ValueError as error:
            raise BadRowError("malformed", f"not JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadRowError("malformed", f"a {type(value).__name__}, not an object")
        return value

    def where(self, row: int) -> str:
        return f"{self.path} at byte {self._starts[row]}"


def _measured(measure: Callable[[dict[str, Any]], int], value: Any) -> int:
    try:
        return measure(value) if isinstance(value, dict) else 0
    except BadRowError:
        return 0


def _scan(path: Path) -> Iterator[tuple[int, int, Any]]:
    """Start, end and value of every record; None for a line that is not JSON."""
    with path.open("rb") as file:
        head = file.read(4096).lstrip()
    return _elements(path) if head.startswith(b"[") else _lines(path)


def _lines(path: Path) -> Iterator[tuple[int, int, Any]]:
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                try:
                    value = json.loads(line)
                except ValueError:
                    value = None
                yield start, start + len(line), value
            start += len(line)


def _elements(path: Path) -> Iterator[tuple[int, int, Any]]:
    """Elements of an array, of which a chunk and one element are in memory at a time."""
    decoder = json.JSONDecoder()
    with path.open(encoding="utf-8") as file:
        text = file.read(_CHUNK)
        place = text.index("[") + 1
        offset = len(text[:place].encode())  # in bytes, of `text[place]`
        while True:
            stop = place
            while stop < len(text) and text[stop] in " \t\r\n,":
                stop += 1
            offset, place = offset + (stop - place), stop
            if text[place : place + 1] == "]":
                return
            try:
                value, end = decoder.raw_decode(text, place)
            except ValueError:
                more = file.read(_CHUNK)
                if not more or len(text) - place > _MAX_RECORD:
                    raise RequestError(f"{path} is not a whole JSON array: it breaks near byte {offset}.") from None
                text, place = text[place:] + more, 0
                continue
            size = len(text[place:end].encode())
            yield offset, offset + size, value
            offset, place = offset + size, end
