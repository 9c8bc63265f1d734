"""Near and far, against the depth prior."""

from collections.abc import Iterator
from itertools import product

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind
from fusion.checks.said import all_boxed, candidates, contradicted
from fusion.checks.seen import Thing
from fusion.evaluate.claims import ClaimedObject


def depth(case: Case) -> Iterator[Finding]:
    """Two things the wrong way round: one said to be nearer than the other, or one in the foreground and the other in
    the background.

    Only things are compared with each other: the prior is relative, and where the foreground ends nobody knows.
    """
    told = case.reading.claims
    for claim in dict.fromkeys(told.relations):
        ends = told.objects[claim.subject[0]], told.objects[claim.object[0]]
        if claim.relation in ("nearer than", "farther than"):
            near, far = ends if claim.relation == "nearer than" else ends[::-1]
            if _wrong(case, near, far):
                yield Finding(
                    FindingKind.WRONG_DEPTH, f"The {near.category} is not nearer than the {far.category}, but farther."
                )
    for near, far in product(_at(case, "in the foreground"), _at(case, "in the background")):
        if _wrong(case, near, far):
            yield Finding(
                FindingKind.WRONG_DEPTH,
                f"The {near.category} is not in the foreground with the {far.category} in the background: the "
                f"{far.category} is nearer.",
            )
            return


def _at(case: Case, band: str) -> list[ClaimedObject]:
    return [one for one in case.reading.claims.objects if one.attributes.get("depth") == band]


def _wrong(case: Case, near: ClaimedObject, far: ClaimedObject) -> bool:
    if not (all_boxed(case, near.category) and all_boxed(case, far.category)):
        return False
    margin = case.section.depth_margin

    def fails(one: Thing, other: Thing) -> bool:
        return one.nearness is not None and other.nearness is not None and one.nearness < other.nearness * (1 - margin)

    return contradicted(candidates(case, near), candidates(case, far), fails)
