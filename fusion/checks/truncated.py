"""Captions that break off."""

import re
from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind

_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s)")
_BROKEN_OFF = re.compile(r"[\w,;:(\-–—&]$")


def truncated(case: Case) -> Iterator[Finding]:
    """The token limit was reached; or a text whose sentences end in full stops ends in none."""
    text = case.caption.text.strip()
    if case.caption.finish_reason == "length":
        yield Finding(FindingKind.TRUNCATED, "The description breaks off at the token limit; be shorter.")
    elif _BROKEN_OFF.search(text) and _SENTENCE_END.search(text):
        end = " ".join(text.split()[-4:])[-60:]
        yield Finding(FindingKind.TRUNCATED, f'The description breaks off at "{end}"; end the sentence.')
