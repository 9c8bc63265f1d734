"""How good relative depth is, beyond what the image row alone tells.

In a world with a ground plane nearly every picture is far at the top and near at the bottom: the mean of all true maps,
the same for every picture, correlates with any one of them at 0.9 and more. Figures are therefore given after the mean
map is taken away, and once more for the mean map itself as the baseline.

Maps are disparities, larger is nearer, at any scale and offset: every map is standardised first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_DEVIATION = 1e-6
"""A map, or what is left of one, that deviates less than this is constant; standardised maps deviate by 1."""
LEAST_RATIO = 1.07
"""Objects whose distances differ by less than this factor have no order."""
LEAST_PIXELS = 4
"""An object that shows fewer pixels of the map has no depth."""


@dataclass(frozen=True)
class DepthFigures:
    """Figures of a set of maps.

    Attributes:
        residual_correlation: mean over images of Pearson's correlation between prediction and truth after each lost
            its least-squares fit by the mean map (the partial correlation given the mean map); -1..1. Exactly 0 for
            the mean map itself and for a constant.
        correlation: mean over images of plain Pearson's correlation.
        pair_order: share 0..1 of object pairs put in the right order; NaN without pairs.
        pairs: how many pairs there are.
    """

    residual_correlation: float
    correlation: float
    pair_order: float
    pairs: int


def depth_figures(
    predicted: np.ndarray,
    true: np.ndarray,
    owners: np.ndarray,
    distances: Sequence[Sequence[float]],
    mean: np.ndarray,
) -> DepthFigures:
    """Hold predicted maps against the truth.

    Args:
        predicted: (n, h, w) disparities at any scale and offset, float.
        true: (n, h, w) disparities, float.
        owners: (n, h, w) integers, 0 where no object is, i + 1 where the image's object i is seen.
        distances: of every image's objects, in any one unit, in the order of `owners`.
        mean: (h, w) from `mean_map`, of other images than these.

    Raises:
        ValueError: shapes do not match, or there is no image.
    """
    if not len(predicted) or not predicted.shape == true.shape == owners.shape or mean.shape != true.shape[1:]:
        shapes = f"{predicted.shape}, {true.shape}, {owners.shape}, {mean.shape}"
        raise ValueError(f"predicted, true and owners need one shape (n, h, w), n > 0, and mean (h, w): got {shapes}")
    right, pairs = ordered_pairs(predicted, owners, distances)
    one, other, expected = standardised(predicted), standardised(true), standardised(mean[None])
    return DepthFigures(
        residual_correlation=float(pearson(_residual(one, expected), _residual(other, expected)).mean()),
        correlation=float(pearson(one, other).mean()),
        pair_order=right / pairs if pairs else float("nan"),
        pairs=pairs,
    )


def mean_map(true: np.ndarray) -> np.ndarray:
    """Mean (h, w) of standardised maps (n, h, w); of training or validation scenes, never of those it is tested on."""
    return standardised(true).mean(axis=0)


def standardised(maps: np.ndarray) -> np.ndarray:
    """Maps (n, h, w) at zero mean and unit variance each, float64; zeros where a map is constant."""
    centred = maps.astype(np.float64) - maps.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    deviation = centred.std(axis=(1, 2), keepdims=True)
    constant = deviation <= LEAST_DEVIATION * np.abs(maps).max(axis=(1, 2), keepdims=True).clip(min=LEAST_DEVIATION)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, deviation))


def _residual(maps: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """What the mean map (1, h, w) does not explain of maps (n, h, w); all standardised.

    Plain subtraction would leave a map that holds too little of the mean map with its negative, which correlates with
    the negative in the truth's residual: a constant would score.
    """
    return maps - (maps * mean).mean(axis=(1, 2), keepdims=True) * mean


def pearson(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson's correlation (n,) of maps (n, h, w) in units near 1; 0 where either is constant."""
    a, b = (maps - maps.mean(axis=(1, 2), keepdims=True) for maps in (one, other))
    spread = a.std(axis=(1, 2)) * b.std(axis=(1, 2))
    constant = np.minimum(a.std(axis=(1, 2)), b.std(axis=(1, 2))) <= LEAST_DEVIATION
    return np.where(constant, 0.0, (a * b).mean(axis=(1, 2)) / np.where(constant, 1.0, spread))


def ordered_pairs(predicted: np.ndarray, owners: np.ndarray, distances: Sequence[Sequence[float]]) -> tuple[int, int]:
    """(pairs in the right order, pairs) over all images; arguments as for `depth_figures`.

    An object's depth is the median over its visible pixels. A tie is wrong: a flat map orders nothing.
    """
    right = pairs = 0
    for disparity, owner, metres in zip(predicted, owners, distances, strict=True):
        pixels = [disparity[owner == number] for number in range(1, len(metres) + 1)]
        seen = [
            (metre, float(np.median(own)))
            for metre, own in zip(metres, pixels, strict=True)
            if own.size >= LEAST_PIXELS
        ]
        for position, (metre, nearness) in enumerate(seen):
            for other_metre, other_nearness in seen[position + 1 :]:
                if max(metre, other_metre) < LEAST_RATIO * min(metre, other_metre):
                    continue
                pairs += 1
                right += nearness > other_nearness if metre < other_metre else nearness < other_nearness
    return right, pairs
