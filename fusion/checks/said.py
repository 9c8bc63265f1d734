"""Which of the seen things a claim of a caption may be about."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, combinations, product

from fusion.checks.case import Case
from fusion.checks.seen import Thing
from fusion.evaluate.claims import ClaimedObject

CENTRE = 1 / 6
"""Share of the image's width by which a thing in the middle third lies off the image's middle, margin aside."""


def fits(value: str, thing: Thing, margin: float) -> bool:
    """Whether a thing may be said to be at a side or level of the image, a value of the table's attributes."""
    x, y = thing.middle
    match value:
        case "in the centre":
            return abs(x - 0.5) <= CENTRE + margin
        case "on the left" | "on the right":
            return (x if value == "on the left" else 1 - x) <= 0.5 + margin
        case _:
            return (y if value == "at the top" else 1 - y) <= 0.5 + margin


def place(kind: str, thing: Thing) -> str:
    """The side or level (`kind`) of the image that a thing lies at."""
    x, y = thing.middle
    if kind == "level":
        return "at the top" if y < 0.5 else "at the bottom"
    return "in the centre" if abs(x - 0.5) <= CENTRE else "on the left" if x < 0.5 else "on the right"


def all_boxed(case: Case, category: str) -> bool:
    """Whether at least as many things were boxed as the caption tells of, so that each may have its own."""
    told = sum(one.category == category for one in case.reading.claims.objects)
    return 0 < told <= len(case.seen.things(category))


def candidates(case: Case, claimed: ClaimedObject) -> list[Thing]:
    """Things of its name; of those the ones at the side that it is said to be at, if there are any.

    Not where the caption tells of another that it may be confused with: `the dog` may be either.
    """
    things = case.seen.things(claimed.category)
    alike = [one for one in case.reading.claims.objects if one.category == claimed.category]
    if sum(not one.colours or not claimed.colours or bool(one.colours & claimed.colours) for one in alike) > 1:
        return things
    for kind in ("side", "level"):
        if value := claimed.attributes.get(kind):
            things = [one for one in things if fits(value, one, 0.0)] or things
    return things


def contradicted(ones: Iterable[Thing], others: Sequence[Thing], fails: Callable[[Thing, Thing], bool]) -> bool:
    """Whether a relation fails between every two things that it may be about."""
    pairs = [(one, other) for one, other in product(ones, others) if one.box != other.box]
    return bool(pairs) and all(fails(one, other) for one, other in pairs)


def subsets(values: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Every subset of distinct values but the empty one, small ones first."""
    distinct = sorted(set(values))
    return chain.from_iterable(combinations(distinct, size) for size in range(1, len(distinct) + 1))
