"""Sources whose rows are a picture and its caption: DenseFusion's files, rows with priors, packaged shards."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusion.box_choice import choose_boxes
from fusion.priors import Priors
from fusion.prompt import Prompt, PromptSection
from fusion.train.section import DenseFusionSource, RowsSource
from fusion.train.sources.base import (
    BadRowError,
    Message,
    Sample,
    Source,
    file_reader,
    image_part,
    message,
    text_part,
)
from fusion.train.sources.records import Records


@dataclass(frozen=True)
class Faulty:
    """An answer that a row's caption is the repair of.

    Attributes:
        findings: what the checks say of it, a sentence each.
    """

    answer: str
    findings: list[str]


class Asking:
    """What a row is asked: the prompt of its alt text and priors as the caption stage makes it, or a fixed question.

    Raises:
        RequestError: the prompt's template cannot be read.
    """

    def __init__(self, prompt: PromptSection | None, question: str) -> None:
        self._choice = prompt or PromptSection()
        self._prompt = Prompt(prompt) if prompt is not None else None
        self._question = question

    def conversation(
        self,
        caption: str,
        alt_text: str | None = None,
        priors: Priors | None = None,
        faulty: Faulty | None = None,
    ) -> list[Message]:
        """Question and answer; with a faulty answer also that one, and the second question that its findings make.

        Raises:
            BadRowError: the caption is empty; there is a faulty answer and no prompt that could ask again.
        """
        if not caption.strip():
            raise BadRowError("no_answer", "the caption is empty")
        answer = message("assistant", text_part(caption.strip()))
        if self._prompt is None:
            if faulty is not None:
                raise BadRowError("malformed", "a row with `first` needs data.sources.prompt, which asks again")
            return [message("user", image_part(), text_part(self._question)), answer]
        said = self._prompt.render(alt_text, priors or Priors())
        asked = [message("system", text_part(said.system)), message("user", image_part(), text_part(said.user))]
        if faulty is None:
            return [*asked, answer]
        again = self._prompt.repair(faulty.findings)
        return [
            *asked,
            message("assistant", text_part(faulty.answer)),
            message("user", text_part(again)),
            answer,
        ]

    def boxes(self, priors: Priors) -> list[list[float]]:
        """The boxes that the prompt shows, for connectors that take boxes: fractions of the picture, in its order."""
        return [[box["x1"], box["y1"], box["x2"], box["y2"]] for box in choose_boxes(priors, self._choice)]


def priors_of(value: Any) -> Priors:
    """Priors of {expert: row}, or of its JSON text.

    Raises:
        BadRowError: it is neither.
    """
    try:
        rows = json.loads(value) if isinstance(value, str) else value
        return Priors.of({name: {"error": None, **row} for name, row in (rows or {}).items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadRowError("malformed", f"priors: {type(error).__name__}: {error}") from None


class DenseFusionCaptions(Source):
    """Rows of a released DenseFusion file.

    Raises:
        RequestError: the file is missing or holds no records.
    """

    def __init__(self, section: DenseFusionSource) -> None:
        self._images = Path(section.images)
        self._records = Records(Path(section.path), _caption_words)
        self._asking = Asking(None, section.question)
        self.words: np.ndarray = self._records.words
        self.bytes = self._records.bytes

    def where(self, row: int) -> str:
        return self._records.where(row)

    def sample(self, row: int) -> Sample:
        record = self._records[row]
        messages = self._asking.conversation(_caption(record))
        names = [str(record[key]) for key in ("image", "image_path") if record.get(key)]
        names += [f"{record['image_id']}.png"] if record.get("image_id") is not None else []
        if not names:
            raise BadRowError("malformed", "neither image nor image_path nor image_id")
        paths = [self._images / name for name in names]
        return Sample(messages, [file_reader(next((p for p in paths if p.is_file()), paths[0]))])


class PriorRows(Source):
    """Rows of a JSONL file with alt text and priors. One with `first` and `findings` teaches the second turn alone.

    Raises:
        RequestError: the file is missing or holds no records, or the prompt's template cannot be read.
    """

    def __init__(self, section: RowsSource) -> None:
        self._images = Path(section.images)
        self._records = Records(Path(section.path), _repair_words)
        self._asking = Asking(section.prompt, section.question)
        self.words: np.ndarray = self._records.words
        self.bytes = self._records.bytes

    def where(self, row: int) -> str:
        return self._records.where(row)

    def sample(self, row: int) -> Sample:
        record = self._records[row]
        if not isinstance(record.get("image"), str):
            raise BadRowError("malformed", "no image")
        priors = priors_of(record.get("priors"))
        faulty = _faulty(record)
        messages = self._asking.conversation(_caption(record), record.get("alt_text"), priors, faulty)
        return Sample(
            messages,
            [file_reader(self._images / record["image"])],
            [self._asking.boxes(priors)],
            last_answer_only=faulty is not None,
        )


def _caption(record: dict[str, Any]) -> str:
    if not isinstance(record.get("caption"), str):
        raise BadRowError("malformed", "no caption")
    return record["caption"]


def _faulty(record: dict[str, Any]) -> Faulty | None:
    """Raises BadRowError where `first` is there and no text, or has no findings."""
    first, found = record.get("first"), record.get("findings")
    if first is None:
        return None
    if not isinstance(first, str) or not first.strip():
        raise BadRowError("malformed", "`first` is no text")
    try:
        details = [str(one["detail"]) for one in (json.loads(found) if isinstance(found, str) else found or [])]
    except (KeyError, TypeError, ValueError) as error:
        raise BadRowError("malformed", f"findings: {type(error).__name__}: {error}") from None
    if not details:
        raise BadRowError("malformed", "`first` without findings: nothing is to be repaired")
    return Faulty(first.strip(), details)


def _repair_words(record: dict[str, Any]) -> int:
    faulty = _faulty(record)
    more = [faulty.answer, *faulty.findings] if faulty else []
    return _caption_words(record) + sum(len(text.split()) for text in more)


def _caption_words(record: dict[str, Any]) -> int:
    return len(_caption(record).split())
