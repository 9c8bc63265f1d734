"""Captions that go round in a loop."""

import re
from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind

# A phrase of up to eight words, or characters in scripts without spaces; unbounded phrases would make this quadratic.
_WORDS_IN_A_ROW = re.compile(r"\b(\w+(?:\W+\w+){0,7}?)(?:\W+\1\b)+", re.IGNORECASE)
_CHARS_IN_A_ROW = re.compile(r"(\S{1,20}?)\1+")
_LOOP_CHARS = 24


def repetition(case: Case) -> Iterator[Finding]:
    """A phrase said again and again in a row, or a sentence said again and again anywhere."""
    phrase = _loop(case.caption.text, case.section.max_repeats)
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
