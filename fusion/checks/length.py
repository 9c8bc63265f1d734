"""Captions of too few or too many words."""

import re
from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind


def length(case: Case) -> Iterator[Finding]:
    """Words are counted at white space, and two characters for one in scripts that write without it."""
    text = case.caption.text
    spaceless = len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]", text))
    words = len(text.split()) + spaceless // 2
    if words < case.section.min_words:
        yield Finding(FindingKind.TOO_SHORT, f"The description has {words} words; say more.")
    if words > case.section.max_words:
        yield Finding(FindingKind.TOO_LONG, f"The description has {words} words; be shorter.")
