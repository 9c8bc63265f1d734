"""How near the object in a box is, by the disparity inside the box."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

CENTRAL = 0.7
"""Share of a box's width and height that is looked at. Of a whole box, corners that show what is behind may be more
than half; the smaller the part, the more of it may be hidden by what stands before the object. With true boxes and maps
every share from 0.6 to 0.8 gives the median of an object's own pixels (tests/experts/test_object_depth.py)."""
SAMPLES = 15
"""Places a side at which a box is read; odd, so that the median is a value of the map."""


def nearness(disparity: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Median disparity in the middle of each box, as a fraction of the map's own range.

    The middle is read at SAMPLES x SAMPLES places, each at the map's pixel that holds it. So a box costs the same at
    any size of map, and one that is smaller than a pixel, or lies on the border, reads the pixel that it is in.

    Args:
        disparity: (h, w), finite, larger is nearer, in any unit; not constant.
        boxes: (n, 4) of x1 y1 x2 y2, normalised to the image.

    Returns:
        (n,) float32 in 0..1: 0 is the farthest place of the map, 1 the nearest.
    """
    height, width = disparity.shape
    places = ((np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5) * CENTRAL + 0.5
    x1, y1, x2, y2 = np.asarray(boxes, np.float64).reshape(-1, 4, 1).transpose(1, 0, 2)
    columns = _pixels(x1 + places * (x2 - x1), width)
    rows = _pixels(y1 + places * (y2 - y1), height)
    seen = disparity[rows[:, :, None], columns[:, None, :]].reshape(len(rows), -1)
    low, high = float(disparity.min()), float(disparity.max())
    return ((np.median(seen, axis=1) - low) / (high - low)).astype(np.float32)


def _pixels(places: np.ndarray, side: int) -> np.ndarray:
    return np.clip((places * side).astype(np.int64), 0, side - 1)


def object_depths(disparity: np.ndarray, boxes: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of schemas.tables.OBJECT_DEPTH, one for each expert and anchor; none where the map is constant.

    Args:
        disparity: (h, w), as for `nearness`.
        boxes: by expert, rows of schemas.tables.BOX.
    """
    found = distinct(boxes)
    if not found or disparity.max() <= disparity.min():
        return []
    corners = np.array([[box[edge] for edge in ("x1", "y1", "x2", "y2")] for box in found.values()])
    near = nearness(disparity, corners).tolist()
    return [
        {"expert": expert, "anchor": anchor, "nearness": one} for (expert, anchor), one in zip(found, near, strict=True)
    ]


def distinct(boxes: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    """The boxes by expert and anchor, in their order: an object under several labels once."""
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for expert, rows in boxes.items():
        for row in rows:
            found.setdefault((expert, row["anchor"]), row)
    return found
