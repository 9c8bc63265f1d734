"""How well found boxes match the true ones: average precision, precision, recall and F1.

Matching and interpolation are those of COCO's evaluation at one IoU (pycocotools, `COCOeval.evaluateImg` and
`accumulate`), without its cap on the number of detections and without crowds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from demo.truth import SceneTruth

RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads precision off its curve."""


@dataclass(frozen=True)
class Found:
    """What a detector found in one image.

    Attributes:
        boxes: float (n, 4), x1 y1 x2 y2, in the units of the truth's.
        labels: (n,), integers or strings.
        scores: float (n,). Equal scores rank by order, so that only distinct ones make the figures independent of it.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        _check(self.boxes, self.labels, self.scores)

    def above(self, threshold: float) -> "Found":
        """Only what has a score above the threshold."""
        kept = self.scores > threshold
        return Found(self.boxes[kept], self.labels[kept], self.scores[kept])


@dataclass(frozen=True)
class Truth:
    """What is in one image.

    Attributes:
        boxes: float (m, 4), x1 y1 x2 y2.
        labels: (m,), integers or strings, as in `Found`.
        ignored: bool (m,), by default all False. An ignored object (nearly hidden, say) need not be found, and what
            is found there is neither right nor wrong; as any other, it takes one detection at most.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        if self.ignored.size == 0:
            object.__setattr__(self, "ignored", np.zeros(len(self.labels), dtype=bool))
        _check(self.boxes, self.labels, self.ignored)


def found_boxes(rows: Sequence[dict[str, Any]]) -> Found:
    """From rows of schemas.tables.BOX."""
    boxes = np.array([[row[edge] for edge in ("x1", "y1", "x2", "y2")] for row in rows], float).reshape(-1, 4)
    scores = np.array([row["score"] for row in rows], float)
    return Found(boxes, np.array([row["label"] for row in rows], str), scores)


def box_truth(scene: SceneTruth, coloured: bool = False) -> Truth:
    """Visible boxes as fractions of the picture, labelled with their category, or with colour and category."""
    boxes = np.array([item.visible_box for item in scene.objects], float).reshape(-1, 4)
    labels = [f"{item.colour} {item.category}" if coloured else item.category for item in scene.objects]
    return Truth(boxes / np.array([scene.width, scene.height] * 2), np.array(labels, str))


def mean_boxes(truth: Sequence[Truth]) -> Found:
    """The mean box of every label, to be found in any picture; its score is the label's share."""
    boxes, labels = np.concatenate([t.boxes for t in truth]), np.concatenate([t.labels for t in truth])
    names, counts = np.unique(labels, return_counts=True)
    return Found(np.stack([boxes[labels == name].mean(axis=0) for name in names]), names, counts / len(labels))


@dataclass(frozen=True)
class AveragePrecision:
    """`mean` of `classes`, the average precision 0..1 of every label that has an object that counts."""

    mean: float
    classes: dict[int | str, float]


def mean_average_precision(found: Sequence[Found], truth: Sequence[Truth], iou: float = 0.5) -> AveragePrecision:
    """COCO's 101-point average precision at one IoU, one entry of `found` and of `truth` per image.

    A detection takes the free object of its label with the largest IoU of at least `iou`, in the order of scores, an
    object that counts before an ignored one. The mean is over the labels of objects that count; detections of other
    labels change nothing.

    Raises:
        ValueError: different numbers of images, or no object that counts.
    """
    matched = _match_all(found, truth, iou)
    classes = {
        label.item(): _interpolated(matched, label, count) for label, count in zip(*_counted(truth), strict=True)
    }
    if not classes:
        raise ValueError("average precision needs a true box that is not ignored")
    return AveragePrecision(float(np.mean(list(classes.values()))), classes)


def precision_recall(
    found: Sequence[Found], truth: Sequence[Truth], threshold: float = 0.5, iou: float = 0.5
) -> tuple[float, float]:
    """Precision and recall 0..1 over all labels together, of detections with a score above `threshold`.

    Precision is 1 where nothing is found.

    Raises:
        ValueError: different numbers of images, or no object that counts.
    """
    outcome = _match_all([one.above(threshold) for one in found], truth, iou).outcome
    objects = int(_counted(truth)[1].sum())
    if not objects:
        raise ValueError("recall needs a true box that is not ignored")
    right, wrong = int((outcome == RIGHT).sum()), int((outcome == WRONG).sum())
    return right / (right + wrong) if right + wrong else 1.0, right / objects


def f1(found: Sequence[Found], truth: Sequence[Truth], threshold: float = 0.5, iou: float = 0.5) -> float:
    """The harmonic mean of `precision_recall`; 0 where both are."""
    precision, recall = precision_recall(found, truth, threshold, iou)
    return 2 * precision * recall / (precision + recall) if recall else 0.0


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes x1 y1 x2 y2: (n, 4) and (m, 4) give (n, m); 0 for boxes without area."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(opposite - corner, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared, dtype=float), where=union > 0)


WRONG, RIGHT, IGNORED = 0, 1, 2


@dataclass(frozen=True)
class _Matched:
    """Every detection of every image: label, score and outcome."""

    labels: np.ndarray
    scores: np.ndarray
    outcome: np.ndarray


def _match_all(found: Sequence[Found], truth: Sequence[Truth], iou: float) -> _Matched:
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} images were looked at, the truth has {len(truth)}")
    if not found:
        return _Matched(np.zeros(0), np.zeros(0), np.zeros(0, dtype=int))
    return _Matched(
        np.concatenate([f.labels for f in found]),
        np.concatenate([f.scores for f in found]),
        np.concatenate([_match(f, t, iou) for f, t in zip(found, truth, strict=True)]),
    )


def _match(found: Found, truth: Truth, iou: float) -> np.ndarray:
    """The outcome of each detection of an image."""
    outcome = np.full(len(found.labels), WRONG)
    overlap = iou_matrix(found.boxes, truth.boxes)
    overlap[found.labels[:, None] != truth.labels[None, :]] = 0
    free = np.ones(len(truth.labels), dtype=bool)
    for i in np.argsort(-found.scores, kind="stable"):
        for candidates, result in ((free & ~truth.ignored, RIGHT), (free & truth.ignored, IGNORED)):
            share = np.where(candidates, overlap[i], 0.0)
            if share.size and share.max() >= max(iou, np.finfo(float).tiny):
                free[share.argmax()] = False
                outcome[i] = result
                break
    return outcome


def _counted(truth: Sequence[Truth]) -> tuple[np.ndarray, np.ndarray]:
    """Labels of objects that count, and how many there are of each."""
    labels = [t.labels[~t.ignored] for t in truth if not t.ignored.all()]
    return np.unique(np.concatenate(labels), return_counts=True) if labels else (np.zeros(0), np.zeros(0, dtype=int))


def _interpolated(matched: _Matched, label: np.generic, objects: int) -> float:
    here = (matched.labels == label) & (matched.outcome != IGNORED)
    order = np.argsort(-matched.scores[here], kind="stable")
    right = np.cumsum(matched.outcome[here][order] == RIGHT)
    if not right.size:
        return 0.0
    precision = right / np.arange(1, right.size + 1)
    # The precision at a recall is the best at that recall or any larger one; 0 at recalls that are never reached.
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(right / objects, RECALLS)].mean())


def _check(boxes: np.ndarray, *columns: np.ndarray) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or any(column.shape != boxes.shape[:1] for column in columns):
        raise ValueError(f"boxes {boxes.shape} and columns {[column.shape for column in columns]} do not fit together")
