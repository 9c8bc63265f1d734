"""Which claimed object is which true one."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from fusion.evaluate.claims import ClaimedObject, Claims
from fusion.evaluate.truth import TrueObject, TruthRow

Fits = Callable[[ClaimedObject, TrueObject], bool]


def claimed_objects(claims: Claims, truth: TruthRow) -> list[ClaimedObject]:
    """The claimed objects; a plural without a number (`balls`, `red cars`) stands for as many as are there, two at
    least."""
    out = list(claims.objects)
    for category in {claims.objects[i].category for i in claims.more}:
        mould = next(claims.objects[i] for i in sorted(claims.more) if claims.objects[i].category == category)
        lacking = truth.count(category) - sum(one.category == category for one in out)
        out += [replace(mould)] * max(0, lacking)
    return out


def same_category(claimed: ClaimedObject, true: TrueObject) -> bool:
    return claimed.category == true.category


def same_look(claimed: ClaimedObject, true: TrueObject) -> bool:
    """Category and colour; where the truth knows no colour, any will do, also none."""
    return claimed.category == true.category and (true.colour is None or true.colour in claimed.colours)


def pairs(claimed: Sequence[ClaimedObject], true: Sequence[TrueObject], fits: Fits) -> dict[int, int]:
    """The most pairs of a claimed and a true object that fit, each in one pair: claimed number to true number.

    Kuhn's augmenting paths; earlier claims keep the first true object that they can.
    """
    taken: dict[int, int] = {}

    def place(i: int, tried: set[int]) -> bool:
        for j, one in enumerate(true):
            if j not in tried and fits(claimed[i], one):
                tried.add(j)
                if j not in taken or place(taken[j], tried):
                    taken[j] = i
                    return True
        return False

    for i in range(len(claimed)):
        place(i, set())
    return {i: j for j, i in taken.items()}


def aligned(claimed: Sequence[ClaimedObject], true: Sequence[TrueObject]) -> dict[int, int]:
    """Pairs of one category: those alike in colour first, of equals those with more attributes in common."""

    def likeness(i: int, j: int) -> tuple[bool, int]:
        common = sum(true[j].attributes.get(kind) == value for kind, value in claimed[i].attributes.items())
        return same_look(claimed[i], true[j]), common

    candidates = [(i, j) for i, one in enumerate(claimed) for j, two in enumerate(true) if same_category(one, two)]
    found: dict[int, int] = {}
    for i, j in sorted(candidates, key=lambda pair: likeness(*pair), reverse=True):
        if i not in found and j not in found.values():
            found[i] = j
    return found
