"""Attributes: whether what is said of an object holds of it."""

from fusion.evaluate.claims import Claims
from fusion.evaluate.matching import aligned, claimed_objects
from fusion.evaluate.tally import Tally
from fusion.evaluate.truth import TruthRow


def attributes(claims: Claims, truth: TruthRow) -> dict[str, Tally]:
    """Precision and recall of attributes, all kinds together and each kind by itself (`attribute_precision.size`).

    Of objects whose category was named; which claimed object is which true one is as kind as can be
    (`matching.aligned`). The colour of an object is not among its attributes.
    """
    said = claimed_objects(claims, truth)
    rights: dict[str, int] = {}
    claimed: dict[str, int] = {}
    true: dict[str, int] = {}
    for i, j in aligned(said, truth.objects).items():
        here = truth.objects[j].attributes
        for kind, wanted in here.items():
            value = said[i].attributes.get(kind)
            claimed[kind] = claimed.get(kind, 0) + (value is not None)
            true[kind] = true.get(kind, 0) + (wanted is not None)
            rights[kind] = rights.get(kind, 0) + (value is not None and value == wanted)
    tallies = {
        "attribute_precision": Tally(sum(rights.values()), sum(claimed.values())),
        "attribute_recall": Tally(sum(rights.values()), sum(true.values())),
    }
    for kind in sorted(rights):
        tallies[f"attribute_precision.{kind}"] = Tally(rights[kind], claimed[kind])
        tallies[f"attribute_recall.{kind}"] = Tally(rights[kind], true[kind])
    return tallies
