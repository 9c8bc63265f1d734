"""Relations: left and right, near and far."""

from itertools import product

from fusion.evaluate.claims import ClaimedObject, ClaimedRelation, Claims
from fusion.evaluate.lexicon import Relation
from fusion.evaluate.tally import Tally
from fusion.evaluate.truth import TrueObject, TruthRow

LEAST_SHIFT = 0.02
"""Share of the picture's width: of objects whose middles differ by less, neither is left of the other, or both are."""
LEAST_RATIO = 1.05
"""Objects whose distances differ by a smaller factor are as near as each other."""
_OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "nearer than": "farther than",
    "farther than": "nearer than",
}


def relations(claims: Claims, truth: TruthRow) -> dict[str, Tally]:
    """Precision of stated relations, and the share that is stated of those that the truth lists.

    A relation is right where it holds between two true objects that look like those it is said of. Those about
    something that is not there are wrong; those that the truth cannot tell (no box, no distance) do not count.
    """
    verdicts = [_verdict(one, claims, truth) for one in claims.relations]
    known = [one for one in verdicts if one is not None]
    listed = sum(any(_states(one, claims, wanted, truth) for one in claims.relations) for wanted in truth.relations)
    return {
        "relation_precision": Tally(sum(known), len(known)),
        "relation_recall": Tally(listed, len(truth.relations)),
    }


def holds(first: TrueObject, relation: Relation, second: TrueObject) -> bool | None:
    """Whether a relation holds; None where the truth cannot tell. In doubt it holds."""
    if relation in ("left of", "right of"):
        if first.box is None or second.box is None:
            return None
        shift = (second.box[0] + second.box[2] - first.box[0] - first.box[2]) / 2
        return (shift if relation == "left of" else -shift) > -LEAST_SHIFT
    if first.distance is None or second.distance is None:
        return None
    near, far = (first, second) if relation == "nearer than" else (second, first)
    assert near.distance is not None and far.distance is not None
    return near.distance <= far.distance * LEAST_RATIO


def _verdict(claim: ClaimedRelation, claims: Claims, truth: TruthRow) -> bool | None:
    subjects = _candidates(claims.objects[claim.subject[0]], truth)
    others = _candidates(claims.objects[claim.object[0]], truth)
    found = [holds(truth.objects[i], claim.relation, truth.objects[j]) for i, j in product(subjects, others) if i != j]
    if not found:
        return False
    return None if all(one is None for one in found) else any(found)


def _candidates(claimed: ClaimedObject, truth: TruthRow) -> list[int]:
    """True objects that a claimed one may be: of its category and, where it says one, its colour."""
    return [
        i
        for i, one in enumerate(truth.objects)
        if one.category == claimed.category
        and (not claimed.colours or one.colour is None or one.colour in claimed.colours)
    ]


def _states(claim: ClaimedRelation, claims: Claims, wanted: tuple[int, Relation, int], truth: TruthRow) -> bool:
    """Whether a stated relation is the wanted one, or the same from the other side."""
    subject, relation, other = wanted
    for ends, said in (
        ((claim.subject, claim.object), claim.relation),
        ((claim.object, claim.subject), _OPPOSITE[claim.relation]),
    ):
        first, second = (_candidates(claims.objects[end[0]], truth) for end in ends)
        if said == relation and subject in first and other in second:
            return True
    return False
