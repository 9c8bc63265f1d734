"""Box arithmetic that detectors share. Boxes are x1 y1 x2 y2, float, normalised to the image (schemas.tables)."""

from typing import Any

import numpy as np


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box (4,) with many (n, 4) -> (n,). Boxes have positive area."""
    left_top = np.maximum(box[:2], others[:, :2])
    right_bottom = np.minimum(box[2:], others[:, 2:])
    overlap = np.clip(right_bottom - left_top, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return overlap / (areas + (box[2:] - box[:2]).prod() - overlap)


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, limit: float) -> np.ndarray:
    """Greedy non-maximum suppression inside each label.

    Args:
        boxes: (n, 4).
        scores: (n,).
        labels: (n,) integers.
        limit: a box goes when its IoU with a better kept one of its label is above this.

    Returns:
        Indices kept, best first; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        covered = (labels[rest] == labels[best]) & (iou(boxes[best], boxes[rest]) > limit)
        order = rest[~covered]
    return np.array(kept, dtype=np.int64)


def best_per_label(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of the first `count` of each label, in order; `labels` (n,) are ordered best first."""
    seen: dict[Any, int] = {}
    kept = []
    for position, label in enumerate(labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= count:
            kept.append(position)
    return np.array(kept, dtype=np.int64)


def clipped(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) cut to the image, and a mask (n,) of those of which something is left inside it."""
    inside = np.clip(boxes, 0.0, 1.0)
    return inside, np.all(inside[:, 2:] > inside[:, :2], axis=1)


def box_rows(labels: list[str], scores: np.ndarray, boxes: np.ndarray) -> list[dict[str, Any]]:
    """Rows of schemas.tables.BOX, in the order given."""
    return [
        {"label": label, "score": float(score), "x1": x1, "y1": y1, "x2": x2, "y2": y2}
        for label, score, (x1, y1, x2, y2) in zip(labels, scores, boxes.tolist(), strict=True)
    ]
