"""What every source of training rows offers: rows by number, and how long each is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Message = dict[str, Any]
"""role (system, user, assistant) and content: a list of {"type": "image"} and {"type": "text", "text": …}."""


class BadRowError(Exception):
    """A row that cannot be learnt from.

    Attributes:
        reason: one word of a closed list, by which bad rows are counted: malformed, no_answer, missing_image,
            undecodable, placeholders, too_long.
        detail: what exactly.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Sample:
    """One row.

    Attributes:
        messages: the conversation.
        images: reads the encoded bytes of each picture, in the order of their places in the messages.
        boxes: of each picture x1, y1, x2, y2, best first.
        boxes_in_pixels: of the stored picture; else boxes are fractions of its width and height.
        last_answer_only: answers before the last one are shown and not learnt.
    """

    messages: list[Message]
    images: list[Callable[[], bytes]] = field(default_factory=list)
    boxes: Sequence[Sequence[Sequence[float]]] = field(default_factory=list)
    boxes_in_pixels: bool = False
    last_answer_only: bool = False


class Source(ABC):
    """Rows of one file or folder; an index of them is in memory, their content is not.

    Attributes:
        words: int32 (rows,), about how many words a row has; below zero where it has no picture (the convention of
            LLaVA's length grouping).
        bytes: size of the files, by which a resumed training notices other data.
    """

    words: np.ndarray
    bytes: int

    def __len__(self) -> int:
        return len(self.words)

    @abstractmethod
    def sample(self, row: int) -> Sample:
        """Raises BadRowError."""

    @abstractmethod
    def where(self, row: int) -> str:
        """The row's place, for a person who wants to look at it."""


def image_part() -> dict[str, str]:
    return {"type": "image"}


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def message(role: str, *parts: dict[str, str]) -> Message:
    return {"role": role, "content": list(parts)}


def file_reader(path: Path) -> Callable[[], bytes]:
    """Reads an image file; the reader raises BadRowError where it is not there."""

    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise BadRowError("missing_image", f"{path}: {error.strerror}") from None

    return read
