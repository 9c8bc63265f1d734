"""Boxes that a detector outside of this program found: the paper's EVA-02 on LVIS and on COCO, for example.

EVA-02's detectors run on a fork of detectron2 with mmcv 1.7 and have no form that pip installs. So they run where they
run, and write the file that MG-LLaVA's bbox_generation writes: a JSON list of records with `id`, `boxes` (x1 y1 x2 y2
in pixels of the picture), `scores` and `labels`; or the same records one a line (.jsonl). No model is loaded here.
"""

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experts.base import ROW, Context, Prior
from experts.boxes import measured_rows
from experts.closed_set_detectors.base import ClosedDetector, ClosedSetSection
from schemas.errors import RequestError
from schemas.identity import file_sha256

_SPACE = re.compile(r"[ \t\n\r]*")
_SHAPE = '{"id": "...", "boxes": [[x1, y1, x2, y2], ...], "scores": [...], "labels": ["...", ...]}'
_BOX = np.dtype([("corners", np.float32, 4), ("score", np.float32), ("label", np.int32)])


class FileDetector(ClosedDetector):
    """Looks records up. An anchor is a box's place in the record, counted on over the files.

    Each worker holds all records, 24 bytes a box and some 300 an image; and, while it reads, the whole text of a JSON
    list, but not of .jsonl.
    """

    def models(self) -> dict[str, str]:
        return {"boxes": " ".join(_checked(path, path.stat().st_mtime_ns) for path in _paths(self.config))}

    def open(self, device: str) -> None:
        places: dict[str, int] = {}
        self._records: dict[str, np.ndarray] = {}
        for path in _paths(self.config):
            for key, rows, labels in records(path):
                rows["label"] = [places.setdefault(label, len(places)) for label in labels]
                before = self._records.get(key)
                self._records[key] = rows if before is None else np.concatenate([before, rows])
        self._labels = list(places)

    def least(self) -> tuple[int, int]:
        return 1, 1

    def prepare(self, image: Image.Image) -> None:
        """Nothing: the row says what size the picture has."""

    def bucket(self, prepared: None) -> None:
        return None

    def look(self, prepared: list[None], contexts: list[Context]) -> list[list[Prior]]:
        return [self._rows(context[ROW]) for context in contexts]

    def finish(self, looked: list[Prior]) -> list[Prior]:
        return looked

    def _rows(self, row: Prior) -> list[Prior]:
        record = self._records.get(str(row[self.config.key]))
        if record is None:
            if self.config.missing == "empty":
                return []
            raise LookupError(f"perceive.closed_set.boxes has no record of {self.config.key} {row[self.config.key]}")
        turn = row["orientation"] if self.config.frame == "stored" else 1
        boxes = upright(record["corners"], row["width"], row["height"], turn)
        above = np.flatnonzero(record["score"] > self.config.floor)
        labels, scores = record["label"][above], record["score"][above]
        return measured_rows(self._labels, labels, scores, boxes[above], above, self.config.keep)

    def close(self) -> None:
        self._records = {}


def upright(boxes: np.ndarray, width: int, height: int, orientation: int) -> np.ndarray:
    """Boxes (n, 4) in pixels as fractions of the upright picture (n, 4), not cut to it.

    Args:
        boxes: x1 y1 x2 y2 in the picture as it is stored.
        width: of the upright picture, px.
        height: of the upright picture, px.
        orientation: EXIF 1..8; 1 where `boxes` are upright already.
    """
    if orientation > 4:
        width, height = height, width
    x1, y1, x2, y2 = (boxes.astype(np.float64) / np.array([width, height, width, height])).T
    turned = {
        1: (x1, y1, x2, y2),
        2: (1 - x2, y1, 1 - x1, y2),
        3: (1 - x2, 1 - y2, 1 - x1, 1 - y1),
        4: (x1, 1 - y2, x2, 1 - y1),
        5: (y1, x1, y2, x2),
        6: (1 - y2, x1, 1 - y1, x2),
        7: (1 - y2, 1 - x2, 1 - y1, 1 - x1),
        8: (y1, 1 - x2, y2, 1 - x1),
    }
    return np.stack(turned[orientation], axis=1)


def records(path: Path) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """(id, boxes, labels) of each record; the boxes are a structured array (n,) of corners in pixels, score and label,
    which is not filled yet: labels (n,) are texts.

    Raises:
        RequestError: the file does not read, a record is not of the format, or two have one id.
    """
    seen = set()
    for number, record in enumerate(_parsed(path)):
        rows = _taken(record)
        if isinstance(rows, str):
            raise RequestError(
                f"perceive.closed_set.boxes: record {number} (from 0) of {path} {rows}. A record is {_SHAPE}, lists "
                "of one length, pixels as numbers, scores from 0 to 1. Mend the file, or write it anew."
            )
        key = str(record["id"])
        if key in seen:
            raise RequestError(
                f"perceive.closed_set.boxes: {path} has two records of id {key}; the second is record {number} (from "
                "0). Join them; or, where two detectors wrote them, give a file of each: what files say is joined."
            )
        seen.add(key)
        yield key, rows, record["labels"]


def _taken(record: Any) -> np.ndarray | str:
    """Corners and scores, _BOX of (n,); or what is wrong with the record."""
    if not isinstance(record, dict):
        return f"is of type {type(record).__name__} and not an object"
    if missing := [name for name in ("id", "boxes", "scores", "labels") if name not in record]:
        return f"has no {missing[0]}"
    if not isinstance(record["id"], str | int):
        return "has an id that is neither text nor an integer"
    boxes, scores, labels = record["boxes"], record["scores"], record["labels"]
    if not all(isinstance(one, list) for one in (boxes, scores, labels)):
        return "has boxes, scores or labels that are no list"
    if not len(boxes) == len(scores) == len(labels):
        return f"has {len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels"
    if not _all_of(labels, str):
        return "has a label that is no text"
    rows = np.zeros(len(boxes), _BOX)
    if (
        not _all_of(boxes, list)
        or any(len(box) != 4 for box in boxes)
        or not _filled(rows["corners"], list(chain(*boxes)))
    ):
        return "has a box that is not four finite numbers"
    if not _filled(rows["score"], scores) or not ((rows["score"] >= 0) & (rows["score"] <= 1)).all():
        return "has a score that is no number from 0 to 1"
    return rows


def _all_of(values: Iterable[Any], *types: type) -> bool:
    # A million records are looked at before a run starts: sets of types are several times faster than isinstance.
    return set(map(type, values)) <= {*types}


def _filled(column: np.ndarray, values: list[Any]) -> bool:
    """Put numbers, row by row, into a column; False where one is no finite number."""
    if not _all_of(values, int, float):
        return False
    column[:] = np.array(values, dtype=np.float64).reshape(column.shape)
    return bool(np.isfinite(column).all())


def _parsed(path: Path) -> Iterator[Any]:
    """The file's records, one JSON value after the other. Raises RequestError."""
    try:
        if path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines if not line.isspace())
        else:
            yield from _listed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"perceive.closed_set.boxes: {path} does not read as JSON{' lines' if path.suffix == '.jsonl' else ''}: "
            f"{error}. It is to be a JSON list of records, or .jsonl with one a line; a record is {_SHAPE}."
        ) from error


def _listed(text: str) -> Iterator[Any]:
    """The values of a JSON list one by one: all of them as Python objects would take ten times the text's memory."""
    decoder, at = json.JSONDecoder(), _past_space(text, 0)
    if not text.startswith("[", at):
        raise ValueError("it is no list")
    at = _past_space(text, at + 1)
    while not text.startswith("]", at):
        value, at = decoder.raw_decode(text, at)
        yield value
        at = _past_space(text, at)
        if text.startswith(",", at):
            at = _past_space(text, at + 1)
        elif not text.startswith("]", at):
            raise json.JSONDecodeError("Expecting ',' or ']'", text, at)


def _past_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _paths(config: ClosedSetSection) -> list[Path]:
    """Raises RequestError where a file is not there."""
    named = [config.boxes] if isinstance(config.boxes, str) else list(config.boxes or ())
    paths = [Path(name).expanduser() for name in named]
    for path in paths:
        if not path.is_file():
            raise RequestError(
                f"perceive.closed_set.boxes: {path} is not there, or is no file. Give the file that the detector wrote."
            )
    return paths


@lru_cache(maxsize=32)
def _checked(path: Path, changed: int) -> str:
    """sha256 of the file, all of whose records are looked at, once for each time that it changed."""
    for _ in records(path):
        pass
    return file_sha256(path)
