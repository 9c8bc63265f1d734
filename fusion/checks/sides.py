"""Sides of the image that things are said to be at, against their boxes."""

from collections.abc import Iterator, Sequence

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind
from fusion.checks.said import fits, place, subsets
from fusion.checks.seen import Thing


def sides(case: Case) -> Iterator[Finding]:
    """More things of a name said to be at a side than there are that lie there.

    Which thing is which is not known, so as many claims as can be are taken for right (Hall's condition). A thing that
    was not boxed may be anywhere.
    """
    told = case.reading.claims.objects
    for category in dict.fromkeys(one.category for one in told):
        things = case.seen.things(category)
        spare = max(0, sum(one.category == category for one in told) - len(things))
        for kind in ("side", "level") if things else ():
            said = [one.attributes[kind] for one in told if one.category == category and kind in one.attributes]
            for values in subsets(said):
                there = sum(any(fits(v, one, case.section.side_margin) for v in values) for one in things)
                if sum(value in values for value in said) - there > spare:
                    where = " or ".join(values)
                    much = f"No {category} is" if not there else f"Fewer things called {category} are"
                    yield Finding(FindingKind.WRONG_SIDE, f"{much} {where} of the image. {_where(things, kind)}")
                    break


def _where(things: Sequence[Thing], kind: str) -> str:
    """A sentence that says where the things of a name are."""
    places = " and ".join(dict.fromkeys(place(kind, one) for one in things))
    return f"It is {places}." if len(things) == 1 else f"They are {places}."
