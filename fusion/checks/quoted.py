"""Quoted text against what was read."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind
from fusion.checks.text_distance import letters, substring_distance

_CUT = 2
"""Letters that a quotation may not leave off a word that was read; more, and the reader ran two words together."""


def quoted_text(case: Case) -> Iterator[Finding]:
    """Quoted text that differs a little from what a reader read, or that none read.

    Case, spaces, marks and letters that look alike do not count. Nothing is found where no expert looked for text.
    """
    lines = case.priors.seen_text()
    if lines is None or not case.quotes:
        return
    seen = [word for line in lines for part in line.split() if (word := letters(part))]
    joined = "".join(seen)
    for quote in dict.fromkeys(case.quotes):
        wanted = letters(quote)
        words = [word for part in quote.split() if (word := letters(part))]
        if not wanted or set(words) <= set(seen) or _stands(wanted, seen):
            continue
        if substring_distance(wanted, joined) <= case.section.quote_distance * len(wanted):
            nearest = _nearest(wanted, lines)
            yield Finding(
                FindingKind.MISQUOTED_TEXT, f'The text "{quote[:80]}" is not spelled so in the image: "{nearest[:80]}".'
            )
        else:
            yield Finding(FindingKind.UNSEEN_TEXT, f'The quoted text "{quote[:80]}" is not in the image.')


def _stands(wanted: str, seen: Sequence[str]) -> bool:
    """Whether letters stand in what was read, with no word's first or last letters left off."""
    ends = list(accumulate(len(word) for word in seen))
    bounds = {0, *ends}
    cuts = (
        {end - i for end in ends for i in range(1, _CUT + 1)},
        {end + i for end in bounds for i in range(1, _CUT + 1)},
    )
    joined = "".join(seen)
    start = joined.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        if (end in bounds or end not in cuts[0]) and (start in bounds or start not in cuts[1]):
            return True
        start = joined.find(wanted, start + 1)
    return False


def _nearest(wanted: str, lines: Sequence[str]) -> str:
    """The line, or two in a row, that a quotation is most like."""
    joined = [*lines, *(f"{one} {other}" for one, other in pairwise(lines))]
    return min(joined, key=lambda line: (substring_distance(wanted, letters(line)), len(line)))
