"""Counts: whether a caption tells of as many things as there are."""

from fusion.evaluate.claims import Claims
from fusion.evaluate.matching import claimed_objects
from fusion.evaluate.tally import Tally
from fusion.evaluate.truth import TruthRow


def counts(claims: Claims, truth: TruthRow) -> dict[str, Tally]:
    """Of the categories that a caption names and that are there: in how many it tells of the right number.

    `count_accuracy_several` is the same of those of which there are two or more. `balls` without a number is right
    where there are two or more.
    """
    said = [one.category for one in claimed_objects(claims, truth)]
    named = [category for category in dict.fromkeys(said) if truth.count(category)]
    right = [category for category in named if said.count(category) == truth.count(category)]
    several = [category for category in named if truth.count(category) > 1]
    return {
        "count_accuracy": Tally(len(right), len(named)),
        "count_accuracy_several": Tally(len(set(right) & set(several)), len(several)),
    }
