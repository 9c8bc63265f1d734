"""How well tags name what is in a picture, pooled over all pictures (micro-averaged)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TagFigures:
    """Over all tags of all pictures together.

    Attributes:
        precision: share 0..1 of given tags that are true; 1 where none is given.
        recall: share 0..1 of true tags that are given.
    """

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """Harmonic mean of both; 0 where both are."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def tag_figures(given: Sequence[Iterable[str]], true: Sequence[Iterable[str]]) -> TagFigures:
    """One entry per picture; a tag counts once a picture, letters' case and outer spaces do not.

    Raises:
        ValueError: different numbers of pictures, or no true tag.
    """
    if len(given) != len(true):
        raise ValueError(f"{len(given)} pictures were tagged, the truth has {len(true)}")
    said, there = _folded(given), _folded(true)
    total, answers = sum(map(len, there)), sum(map(len, said))
    if not total:
        raise ValueError("tags need a true tag to be held against")
    right = sum(len(one & other) for one, other in zip(said, there, strict=True))
    return TagFigures(right / answers if answers else 1.0, right / total)


def best_fixed_tags(true: Sequence[Iterable[str]]) -> list[str]:
    """The tags that, given to every picture alike, have the best F1: the most frequent ones, as many as pay.

    Of sets of one size the most frequent tags are right most often, so only those are tried.
    """
    there = _folded(true)
    counts = sorted(Counter(tag for tags in there for tag in tags).items(), key=lambda item: (-item[1], item[0]))
    ranked = [tag for tag, _ in counts]
    prefixes = [ranked[:size] for size in range(1, len(ranked) + 1)]
    return max(prefixes, key=lambda prefix: tag_figures([prefix] * len(there), there).f1)


def _folded(tags: Sequence[Iterable[str]]) -> list[set[str]]:
    return [{tag.strip().lower() for tag in one} for one in tags]
