"""Objects: whether a caption names what is there, and nothing else."""

from fusion.evaluate.claims import Claims
from fusion.evaluate.matching import claimed_objects, pairs, same_category, same_look
from fusion.evaluate.tally import Tally, f1
from fusion.evaluate.truth import TruthRow


def objects(claims: Claims, truth: TruthRow) -> dict[str, Tally]:
    """Precision, recall and F1 of objects by category and colour, and by category alone (`category_…`).

    Two red balls are two objects. An object that is named without its colour is not found where the truth has one.
    """
    said = claimed_objects(claims, truth)
    tallies: dict[str, Tally] = {}
    for name, fits in (("object", same_look), ("category", same_category)):
        right = len(pairs(said, truth.objects, fits))
        tallies[f"{name}_precision"] = Tally(right, len(said))
        tallies[f"{name}_recall"] = Tally(right, len(truth.objects))
        tallies[f"{name}_f1"] = f1(right, len(said), len(truth.objects))
    return tallies
