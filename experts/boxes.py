"""Box arithmetic that detectors share. Boxes are x1 y1 x2 y2, float, normalised to the image (schemas.tables)."""

from typing import Any

import numpy as np

from experts.base import Prior


def corners(centred: np.ndarray) -> np.ndarray:
    """(n, 4) centre x, centre y, width, height -> (n, 4) x1 y1 x2 y2."""
    centre, half = centred[:, :2], centred[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union, (n,), of boxes (n, 4) and as many others (n, 4). Boxes have positive area."""
    # Column by column: numpy is slow along an axis of two.
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    u1, v1, u2, v2 = np.ascontiguousarray(others.T)
    wide = np.maximum(np.minimum(x2, u2) - np.maximum(x1, u1), 0)
    overlap = wide * np.maximum(np.minimum(y2, v2) - np.maximum(y1, v1), 0)
    return overlap / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - overlap)


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, limit: float) -> np.ndarray:
    """Greedy non-maximum suppression inside each label. Memory grows with the square of a label's boxes.

    Args:
        boxes: (n, 4).
        scores: (n,).
        labels: (n,) integers.
        limit: a box goes when its IoU with a better kept one of its label is above this.

    Returns:
        Indices kept, best first; equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, labels = boxes[order].astype(np.float64), labels[order]
    # Few boxes share a label, so only those pairs are looked at, and only those that overlap one by one.
    better, worse = np.nonzero(np.triu(labels[:, None] == labels[None, :], 1))
    over = iou(boxes.take(better, axis=0), boxes.take(worse, axis=0)) > limit
    kept = [True] * len(order)
    for i, j in zip(better[over].tolist(), worse[over].tolist(), strict=True):
        if kept[i]:
            kept[j] = False
    return order[np.array(kept, dtype=bool)]


def best_of_each(anchors: np.ndarray, scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Mask (n,) of one row of every anchor: that of the highest score, of equal ones that of the lowest place.

    Args:
        anchors, places: (n,) integers.
        scores: (n,).
    """
    order = np.lexsort((places, -scores, anchors))
    first = np.ones(len(order), dtype=bool)
    first[1:] = anchors[order[1:]] != anchors[order[:-1]]
    best = np.zeros(len(order), dtype=bool)
    best[order[first]] = True
    return best


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


def measured_rows(
    names: list[str], labels: np.ndarray, scores: np.ndarray, boxes: np.ndarray, anchors: np.ndarray, keep: int
) -> list[Prior]:
    """Rows of schemas.tables.BOX: cut to the image, without those outside it, best first, at most `keep`.

    Values are rounded to the table's float32 here, so that a row says the same before and after it was stored. Equal
    scores keep their order.

    Args:
        names: label texts.
        labels: (n,) indices into `names`.
        scores: (n,).
        boxes: (n, 4).
        anchors: (n,) integers.
    """
    kept, inside = clipped(boxes.astype(np.float32))
    scores = scores.astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    order = order[inside[order]][:keep]
    columns = (labels[order].tolist(), scores[order].tolist(), kept[order].tolist(), anchors[order].tolist())
    return [
        {"label": names[label], "score": score, "x1": x1, "y1": y1, "x2": x2, "y2": y2, "anchor": anchor}
        for label, score, (x1, y1, x2, y2), anchor in zip(*columns, strict=True)
    ]


def scores_of(rows: list[Prior]) -> np.ndarray:
    """Scores of measured rows, float32 of (n,): thresholds are compared in it, as the libraries do."""
    return np.array([row["score"] for row in rows], dtype=np.float32)


def boxes_of(rows: list[Prior]) -> np.ndarray:
    """Boxes of measured rows, float32 of (n, 4)."""
    values = [(row["x1"], row["y1"], row["x2"], row["y2"]) for row in rows]
    return np.array(values, dtype=np.float32).reshape(-1, 4)
