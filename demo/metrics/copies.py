"""How well copies of a picture are told from pictures that are merely alike."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CopyFigures:
    """What a de-duplication did to scenes of which some have a copy beside the original.

    Attributes:
        found: share 0..1 of copied scenes of which one picture went because of the other.
        hit: share 0..1 of all scenes of which a picture went because of another scene's.
    """

    found: float
    hit: float


def copy_figures(scene_of: Mapping[str, int], gone: Mapping[str, str]) -> CopyFigures:
    """Count what went, and because of what.

    Args:
        scene_of: the scene of each picture, by uid; one or two pictures a scene.
        gone: uid of each picture that went to the uid of the one that suppressed it.

    Raises:
        ValueError: no scene has a copy.
    """
    pictures = Counter(scene_of.values())
    copied = sum(count > 1 for count in pictures.values())
    if not copied:
        raise ValueError("copies are found among scenes that have one")
    found = {scene_of[uid] for uid, by in gone.items() if scene_of[uid] == scene_of[by]}
    hit = {scene_of[uid] for uid, by in gone.items() if scene_of[uid] != scene_of[by]}
    return CopyFigures(len(found) / copied, len(hit) / len(pictures))


def earlier_neighbours(similarity: np.ndarray) -> np.ndarray:
    """The largest similarity of each scene to one before it, (n,), -inf for the first; from a symmetric (n, n).

    A scene goes where the threshold is below this: the later one of two that look alike.
    """
    below = np.where(np.tri(len(similarity), k=-1, dtype=bool), similarity, -np.inf)
    return below.max(axis=1)


def threshold_for(distinct: np.ndarray, most_hit: float) -> float:
    """The least threshold above which at most a share `most_hit` of distinct scenes have an earlier neighbour.

    Args:
        distinct: (n,) from `earlier_neighbours`, n > 0.
        most_hit: 0 up to, not including, 1.
    """
    descending = np.sort(distinct)[::-1]
    return float(descending[int(most_hit * len(descending))])


def found_above(copies: np.ndarray, threshold: float) -> float:
    """Share 0..1 of copies whose similarity (m,) to their original is above a threshold."""
    return float((copies > threshold).mean())
