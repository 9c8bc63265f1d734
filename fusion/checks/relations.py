"""Left and right, above and below between two things, against their boxes."""

from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind
from fusion.checks.said import all_boxed, candidates, contradicted
from fusion.checks.seen import Thing

_AXES = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}
"""Coordinate of a middle, and its sign: the subject's is less than the object's, or greater."""
_OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def relations(case: Case) -> Iterator[Finding]:
    """A relation that the boxes of no two things of those names bear out.

    Middles of boxes are compared. Nothing is said where fewer things of a name were boxed than the caption tells of.
    """
    told = case.reading.claims
    for claim in dict.fromkeys(told.relations):
        if str(claim.relation) not in _AXES:
            continue
        axis, sign = _AXES[str(claim.relation)]
        subject, other = told.objects[claim.subject[0]], told.objects[claim.object[0]]
        if not (all_boxed(case, subject.category) and all_boxed(case, other.category)):
            continue

        def fails(one: Thing, two: Thing, axis: int = axis, sign: int = sign) -> bool:
            return sign * (one.middle[axis] - two.middle[axis]) > case.section.place_margin

        if contradicted(candidates(case, subject), candidates(case, other), fails):
            yield Finding(
                FindingKind.WRONG_RELATION,
                f"The {subject.category} is not {claim.relation} the {other.category}, but "
                f"{_OPPOSITES[str(claim.relation)]} it.",
            )
