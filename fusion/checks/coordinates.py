"""Box numbers of the notes in the text."""

import re
from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind

_FRACTION = r"(?:[01]?\.\d+|[01])"
_COORDINATES = re.compile(
    rf"[\[(]\s*{_FRACTION}\s*(?:,\s*{_FRACTION}\s*){{3}}[\])]|(?:\b[01]\.\d{{2,}}\b[,\s]*){{3,}}"
    r"|\[\s*\d{1,4}\s*(?:,\s*\d{1,4}\s*){3}\]|\b[xy][12]?\s*=\s*\d|<\|?(?:box|loc|bbox|ref|quad)[\w|]*>",
    re.IGNORECASE,
)


def coordinates(case: Case) -> Iterator[Finding]:
    """Four numbers as of a box, several fractions in a row, or a grounding model's marks."""
    match = _COORDINATES.search(case.caption.text)
    if match:
        yield Finding(FindingKind.COORDINATES, f"The description prints coordinates: {match.group().strip()}.")
