"""Things that a caption names against those that experts name."""

from collections.abc import Iterator
from typing import Literal

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind
from fusion.checks.nouns import nouns

Verdict = Literal["seen", "unseen", "unverified"]


def objects(case: Case) -> Iterator[Finding]:
    """Things that no expert saw."""
    for category in dict.fromkeys(one.category for one in case.reading.claims.objects):
        if verdict(case, category) == "unseen":
            yield Finding(
                FindingKind.UNSEEN_OBJECT, f'Nothing of the kind "{category}" was seen in the image; do not mention it.'
            )


def verdict(case: Case, category: str) -> Verdict:
    """Whether a thing of a category is there, by the experts.

    `unverified`: nobody saw it and nobody need have: no detector, or no expert of many words, looked; or the table does
    not hold it, or holds it as one that experts pass over.
    """
    if case.seen.named(category):
        return "seen"
    known = category in nouns().categories and category not in nouns().unsure
    return "unseen" if known and case.seen.looked else "unverified"
