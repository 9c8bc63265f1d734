"""MG-LLaVA's box files: what RAM++ and OWLv2 found in each picture, and which of it becomes tokens.

Source: PhoenixZ810/MG-LLaVA `mg_llava/module/mg_llava_dataset.py`.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fusion.train.sources.base import BadRowError
from fusion.train.sources.records import Records

IOU = 0.2
LIMIT = 100
PER_LABEL, PER_LABEL_OF_LONG_TEXT = 20, 1


class ObjectBoxes:
    """Boxes by the id of a row, from a JSON array or JSONL of id, boxes (pixels), scores and labels.

    Raises:
        RequestError: the file is missing or holds no records.
    """

    def __init__(self, path: Path) -> None:
        keys: list[int] = []

        def key_of(record: dict[str, Any]) -> int:
            keys.append(_key(str(record.get("id"))))
            return 0

        self._records = Records(path, key_of)
        if len(keys) != len(self._records):  # lines that are no objects have no key
            keys = [_key(str(_id(self._records, row))) for row in range(len(self._records))]
        unordered = np.array(keys, np.uint64)
        self._order = np.argsort(unordered, kind="stable")
        self._keys = unordered[self._order]
        self.bytes = self._records.bytes

    def of(self, row_id: str, long_text: bool = False) -> list[list[float]]:
        """Boxes x1, y1, x2, y2 in pixels, best first; none for an id that is not there.

        Overlapping boxes of one label go (IoU above 0.2). Where more than 100 are left, or the text is long, the 20
        best of each label stay, or the single best.
        """
        key = np.uint64(_key(row_id))
        place = int(np.searchsorted(self._keys, key))
        while place < len(self._keys) and self._keys[place] == key:
            record = self._records[int(self._order[place])]
            if str(record.get("id")) == row_id:
                return _chosen(record, long_text)
            place += 1
        return []


def _id(records: Records, row: int) -> Any:
    try:
        return records[row].get("id")
    except BadRowError:
        return None


def _key(row_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(row_id.encode(), digest_size=8).digest(), "little")


def _chosen(record: dict[str, Any], long_text: bool) -> list[list[float]]:
    try:
        boxes = np.asarray(record["boxes"], np.float64).reshape(-1, 4)
        scores = np.asarray(record["scores"], np.float64).reshape(-1)
        labels = np.asarray([str(label) for label in record["labels"]], object)
        if not len(boxes) == len(scores) == len(labels):
            raise ValueError(f"{len(boxes)} boxes, {len(scores)} scores, {len(labels)} labels")
    except (KeyError, TypeError, ValueError) as error:
        raise BadRowError("malformed", f"boxes of {record.get('id')}: {error}") from None
    order = np.argsort(-scores, kind="stable")
    kept = _apart(boxes, labels, order)
    if len(kept) > LIMIT or long_text:
        most, counts, chosen = PER_LABEL_OF_LONG_TEXT if long_text else PER_LABEL, dict[str, int](), []
        for place in kept:
            counts[labels[place]] = counts.get(labels[place], 0) + 1
            if counts[labels[place]] <= most:
                chosen.append(place)
        kept = chosen
    return boxes[kept].tolist()


def _apart(boxes: np.ndarray, labels: np.ndarray, order: np.ndarray) -> list[int]:
    """Greedy non-maximum suppression inside of each label, best score first."""
    kept: list[int] = []
    for place in order.tolist():
        rivals = [other for other in kept if labels[other] == labels[place]]
        if not rivals or _overlap(boxes[place], boxes[rivals]).max() <= IOU:
            kept.append(place)
    return kept


def _overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with each of others; 0 where both are empty."""
    left, right = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(right - left, 0, None).prod(axis=1)
    areas = np.clip(others[:, 2:] - others[:, :2], 0, None).prod(axis=1) + np.clip(box[2:] - box[:2], 0, None).prod()
    return shared / np.maximum(areas - shared, 1e-12)
