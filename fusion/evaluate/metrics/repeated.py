"""Errors of others: whether a caption repeats what the alt text or a detector says wrongly."""

from collections import Counter

from fusion.evaluate.claims import Claims
from fusion.evaluate.tally import Tally
from fusion.evaluate.truth import NamedThing, TruthRow


def false_claims(claims: Claims, truth: TruthRow) -> dict[str, Tally]:
    """Of the things that the alt text names and that are not there: how many the caption names, too.

    Of a category that is not there at all, any mention repeats it; of one that is there in other colours, only one with
    the wrong colour. What a caption says not to be there it does not name.
    """
    repeated = sum(_names(claims, truth, one) for one in truth.false_claims)
    return {"false_claims_repeated": Tally(repeated, len(truth.false_claims))}


def _names(claims: Claims, truth: TruthRow, false: NamedThing) -> bool:
    named = [one for one in claims.objects if one.category == false.category]
    if truth.count(false.category) == 0:
        return bool(named)
    return false.colour is not None and any(false.colour in one.colours for one in named)


def false_boxes(claims: Claims, truth: TruthRow) -> dict[str, Tally]:
    """Of the boxes that hold nothing of their category: how many the caption makes objects of.

    That is seen by their number: a caption that names more things of a category than there are made the surplus of
    false boxes, as far as there were such.
    """
    named = Counter(one.category for one in claims.objects)
    repeated = sum(
        min(given, max(0, named[category] - truth.count(category)))
        for category, given in Counter(truth.false_boxes).items()
    )
    return {"false_boxes_repeated": Tally(repeated, len(truth.false_boxes))}
