"""What a check finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """What can be wrong with a caption; the values go into the caption table. docs/checks.md has an entry for each."""

    EMPTY = "empty"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    REPETITION = "repetition"
    UNSEEN_TEXT = "unseen_text"
    MISQUOTED_TEXT = "misquoted_text"
    TEXT_LEFT_OUT = "text_left_out"
    UNSEEN_OBJECT = "unseen_object"
    WRONG_COUNT = "wrong_count"
    WRONG_RELATION = "wrong_relation"
    WRONG_SIDE = "wrong_side"
    WRONG_DEPTH = "wrong_depth"
    REFUSAL = "refusal"
    COORDINATES = "coordinates"
    WRONG_LANGUAGE = "wrong_language"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"


@dataclass(frozen=True)
class Finding:
    """One fault. `detail` is a sentence that a person and the model can act on."""

    kind: FindingKind
    detail: str


def faultiness(findings: Sequence[Finding]) -> tuple[bool, int]:
    """By which two captions are compared, less is better: one that is none, with its one finding, is worse than any."""
    return any(one.kind in (FindingKind.EMPTY, FindingKind.MALFORMED) for one in findings), len(findings)
