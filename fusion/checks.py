"""What a caption says against what the experts saw: pure functions from a caption to findings.

A finding measures, it decides nothing: `caption.reject_on` and `caption.repair_on` say what follows from it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from fusion.priors import Priors
from schemas.section import Section


class FindingKind(StrEnum):
    """What can be wrong with a caption; the values go into the caption table."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    REPETITION = "repetition"
    UNSEEN_TEXT = "unseen_text"
    REFUSAL = "refusal"
    COORDINATES = "coordinates"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"


@dataclass(frozen=True)
class Finding:
    """One fault. `detail` is a sentence that a person and the model can act on."""

    kind: FindingKind
    detail: str


class ChecksSection(Section):
    """Where the checks draw their lines."""

    min_words: int = Field(20, ge=0, le=1000, description="fewer words are a finding")
    max_words: int = Field(320, ge=1, le=10_000, description="more words are a finding")
    max_repeats: int = Field(3, ge=1, le=100, description="times a phrase may stand in a row before it is a loop")
    quote_distance: float = Field(
        0.34, ge=0, le=1, description="edits per character by which quoted text may differ from what was read"
    )


@dataclass(frozen=True)
class Caption:
    """A caption as the engine gave it."""

    text: str
    finish_reason: str


Check = Callable[[Caption, Priors, ChecksSection], Iterator[Finding]]


def check(caption: Caption, priors: Priors, section: ChecksSection) -> list[Finding]:
    """All findings, in the order of CHECKS; an empty caption has only that one."""
    if not caption.text.strip():
        return [Finding(FindingKind.EMPTY, "The description is empty.")]
    return [finding for one in CHECKS for finding in one(caption, priors, section)]


def truncated(caption: Caption, priors: Priors, section: ChecksSection) -> Iterator[Finding]:
    if caption.finish_reason == "length":
        yield Finding(FindingKind.TRUNCATED, "The description breaks off at the token limit; be shorter.")


# A phrase of up to eight words, or characters in scripts without spaces; unbounded phrases would make this quadratic.
_WORDS_IN_A_ROW = re.compile(r"\b(\w+(?:\W+\w+){0,7}?)(?:\W+\1\b)+", re.IGNORECASE)
_CHARS_IN_A_ROW = re.compile(r"(\S{1,20}?)\1+")
_LOOP_CHARS = 24


def repetition(caption: Caption, priors: Priors, section: ChecksSection) -> Iterator[Finding]:
    """A phrase said again and again in a row, or a sentence said again and again anywhere."""
    phrase = _loop(caption.text, section.max_repeats)
    if phrase:
        yield Finding(FindingKind.REPETITION, f'The description repeats "{phrase[:80]}" over and over.')


def _loop(text: str, most: int) -> str | None:
    for match in _WORDS_IN_A_ROW.finditer(text):
        unit = len(match.group(1).split())
        if len(match.group().split()) > most * unit:
            return match.group(1)
    for match in _CHARS_IN_A_ROW.finditer(text):
        if len(match.group()) >= _LOOP_CHARS and len(match.group()) > most * len(match.group(1)):
            return match.group(1)
    sentences = [s.strip().casefold() for s in re.split(r"[.!?。！？\n]+", text) if len(s.split()) >= 3]
    return next((s for s in sentences if sentences.count(s) > most), None)


# A single quote opens after a space or bracket and closes before one, else it is an apostrophe.
QUOTED = re.compile(
    r"\"([^\"\n]+)\"|“([^”\n]+)”|„([^“”\n]+)[“”]|«([^»\n]+)»|「([^」\n]+)」|(?<![\w'])'([^'\n]+)'(?!\w)"
)


def unseen_text(caption: Caption, priors: Priors, section: ChecksSection) -> Iterator[Finding]:
    """Quoted text that no reader saw in the image; nothing is found where no expert looked for text."""
    lines = priors.seen_text()
    if lines is None:
        return
    seen = _letters(" ".join(lines))
    for match in QUOTED.finditer(caption.text):
        quote = next(group for group in match.groups() if group)
        letters = _letters(quote)
        if letters and substring_distance(letters, seen) > section.quote_distance * len(letters):
            yield Finding(FindingKind.UNSEEN_TEXT, f'The quoted text "{quote[:80]}" is not in the image.')


def substring_distance(needle: str, text: str) -> int:
    """Least edits (insert, delete, substitute) from `needle` to any substring of `text`: Sellers' algorithm."""
    if needle in text:
        return 0
    row = list(range(len(needle) + 1))
    best = row[-1]
    for char in text:
        diagonal, row[0] = row[0], 0
        for i, wanted in enumerate(needle, start=1):
            diagonal, row[i] = row[i], min(diagonal + (char != wanted), row[i] + 1, row[i - 1] + 1)
        best = min(best, row[-1])
    return best


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


_REFUSAL = re.compile(
    r"\bas an? (?:ai|artificial|language|large|virtual)\b|\bi(?:'m| am) (?:sorry|unable|not able)\b|\bi can(?:no|')t\b"
    r"|\b(?:ocr|bounding box(?:es)?|alt text|detected objects|(?:the|provided|given) notes|short caption|prompt)\b"
    r"|\bas requested\b|^\s*(?:sure|certainly|of course)[,!]"
    r"|\bhere is (?:a|the) (?:detailed )?(?:description|caption)\b",
    re.IGNORECASE,
)


def refusal(caption: Caption, priors: Priors, section: ChecksSection) -> Iterator[Finding]:
    """The model speaks of itself, of its task or of its notes instead of the image."""
    match = _REFUSAL.search(caption.text)
    if match:
        yield Finding(FindingKind.REFUSAL, f'"{match.group().strip()}" is not about the image.')


_COORDINATES = re.compile(
    r"[\[(]\s*(?:[01]?\.\d+|[01])\s*(?:,\s*(?:[01]?\.\d+|[01])\s*){3}[\])]|(?:\b[01]\.\d{2,}\b[,\s]*){3,}"
)


def coordinates(caption: Caption, priors: Priors, section: ChecksSection) -> Iterator[Finding]:
    """Box numbers of the notes in the text."""
    match = _COORDINATES.search(caption.text)
    if match:
        yield Finding(FindingKind.COORDINATES, f"The description prints coordinates: {match.group().strip()}.")


def length(caption: Caption, priors: Priors, section: ChecksSection) -> Iterator[Finding]:
    """Words are counted at white space, and two characters for one in scripts that write without it."""
    spaceless = len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]", caption.text))
    words = len(caption.text.split()) + spaceless // 2
    if words < section.min_words:
        yield Finding(FindingKind.TOO_SHORT, f"The description has {words} words; say more.")
    if words > section.max_words:
        yield Finding(FindingKind.TOO_LONG, f"The description has {words} words; be shorter.")


CHECKS: tuple[Check, ...] = (truncated, repetition, unseen_text, refusal, coordinates, length)
