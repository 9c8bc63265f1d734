"""Text that was read and is not quoted."""

from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind
from fusion.checks.text_distance import letters, substring_distance
from fusion.priors import TextLine


def text_left_out(case: Case) -> Iterator[Finding]:
    """Lines that were surely read and that the caption has neither quoted nor in its own words.

    Of many lines only the tallest are asked for, so that a page of print need not be copied. A quotation that is nearly
    the line quotes it; what is wrong with it, `misquoted_text` says.
    """
    section = case.section
    lines = [line for line in case.priors.lines or [] if line["score"] >= section.left_out_score]
    lines = [line for line in lines if len(letters(line["text"])) >= section.left_out_letters]
    tallest = sorted(lines, key=_height, reverse=True)[: section.left_out_lines]
    if not tallest:
        return
    said, quoted = letters(case.caption.text), letters("".join(case.quotes))
    for line in tallest:
        wanted = letters(line["text"])
        if wanted not in said and substring_distance(wanted, quoted) > section.quote_distance * len(wanted):
            yield Finding(FindingKind.TEXT_LEFT_OUT, f'The image has the text "{line["text"][:80]}"; quote it.')


def _height(line: TextLine) -> float:
    """Of its upright box, as a share of the image's height."""
    rows = line["polygon"][1::2]
    return max(rows) - min(rows) if rows else 0.0
