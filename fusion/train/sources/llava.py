"""LLaVA's conversation files.

Source: haotian-liu/LLaVA `docs/Finetune_Custom_Data.md` and `llava/train/train.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from fusion.train.section import LLaVASource
from fusion.train.sources.base import BadRowError, Message, Sample, Source, file_reader, image_part, message, text_part
from fusion.train.sources.object_boxes import ObjectBoxes
from fusion.train.sources.records import Records

PLACE = "<image>"
"""How the files mark a picture's place, whatever the model's own token is."""
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_LONG_WORDS = 1100
"""From so many words on a text is long, and its picture keeps fewer boxes. MG-LLaVA counts tokens, 1,422 (its
1,472 of text less 50); here the words of an index are at hand, about 1.3 tokens each."""


class LLaVAConversations(Source):
    """Rows of a LLaVA file.

    Raises:
        RequestError: a file is missing or holds no records.
    """

    def __init__(self, section: LLaVASource) -> None:
        self._section = section
        self._images = Path(section.images)
        self._records = Records(Path(section.path), _words)
        self._boxes = ObjectBoxes(Path(section.boxes)) if section.boxes is not None else None
        self.words: np.ndarray = self._records.words
        self.bytes = self._records.bytes + (self._boxes.bytes if self._boxes is not None else 0)

    def where(self, row: int) -> str:
        return self._records.where(row)

    def sample(self, row: int) -> Sample:
        record = self._records[row]
        turns, names = _turns(record), _image_names(record)
        messages = [] if self._section.system is None else [message("system", text_part(self._section.system))]
        messages += [_message(role, text, bool(names)) for role, text in turns]
        places = sum(part["type"] == "image" for one in messages for part in one["content"])
        if places == 0 and len(names) == 1:  # a file may leave the only picture's place out
            first = next(one for one in messages if one["role"] == "user")
            first["content"].insert(0, image_part())
            places = 1
        if places != len(names):
            raise BadRowError("placeholders", f"{places} places for {len(names)} pictures")
        boxes: list[Any] = []
        if self._boxes is not None and names:
            boxes = [self._boxes.of(str(record.get("id")), abs(int(self.words[row])) >= _LONG_WORDS)]
            boxes += [[] for _ in names[1:]]
        return Sample(messages, [file_reader(self._images / name) for name in names], boxes, boxes_in_pixels=True)


def _turns(record: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        turns = [(_ROLES[turn["from"]], str(turn["value"])) for turn in record["conversations"]]
    except (KeyError, TypeError) as error:
        raise BadRowError("malformed", f"conversations: {type(error).__name__}: {error}") from None
    while turns and turns[0][0] == "assistant":  # LLaVA, too, lets a conversation begin with its first question
        turns.pop(0)
    if not any(role == "assistant" and text.strip() for role, text in turns):
        raise BadRowError("no_answer", "no turn of gpt says anything after one of human")
    return turns


def _image_names(record: dict[str, Any]) -> list[str]:
    given = record.get("image")
    names = given if isinstance(given, list) else [] if given in (None, "") else [given]
    if not all(isinstance(name, str) for name in names):
        raise BadRowError("malformed", f"image: {given!r}")
    return names


def _message(role: str, text: str, pictured: bool) -> Message:
    """A turn with its pictures in place; a single one comes first, wherever the text has it (LLaVA
    `preprocess_multimodal`)."""
    if not pictured or role != "user" or PLACE not in text:
        return message(role, text_part(text.strip()))
    pieces = text.split(PLACE)
    if len(pieces) == 2:
        return message(role, image_part(), text_part(" ".join(filter(None, (p.strip() for p in pieces)))))
    parts = []
    for number, piece in enumerate(pieces):
        if number:
            parts.append(image_part())
        if piece.strip():
            parts.append(text_part(piece.strip()))
    return message(role, *parts)


def _words(record: dict[str, Any]) -> int:
    count = sum(len(text.split()) for _, text in _turns(record))
    return count if _image_names(record) else -count
