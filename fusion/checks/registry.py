"""The checks, in the order of their findings. A new one is a file and a line here, and an entry in docs/checks.md."""

from collections.abc import Callable, Iterator

from fusion.checks.case import Caption, Case
from fusion.checks.coordinates import coordinates
from fusion.checks.counts import counts
from fusion.checks.depth import depth
from fusion.checks.finding import Finding, FindingKind
from fusion.checks.language import language
from fusion.checks.left_out import text_left_out
from fusion.checks.length import length
from fusion.checks.objects import objects
from fusion.checks.quoted import quoted_text
from fusion.checks.refusal import refusal
from fusion.checks.relations import relations
from fusion.checks.repetition import repetition
from fusion.checks.section import ChecksSection
from fusion.checks.sides import sides
from fusion.checks.truncated import truncated
from fusion.priors import Priors

Check = Callable[[Case], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    truncated,
    repetition,
    quoted_text,
    text_left_out,
    objects,
    counts,
    relations,
    sides,
    depth,
    refusal,
    coordinates,
    language,
    length,
)


def check(caption: Caption, priors: Priors, section: ChecksSection) -> list[Finding]:
    """All findings, in the order of CHECKS; an empty caption has only that one."""
    if not caption.text.strip():
        return [Finding(FindingKind.EMPTY, "The description is empty.")]
    case = Case(caption, priors, section)
    return [finding for one in CHECKS for finding in one(case)]
