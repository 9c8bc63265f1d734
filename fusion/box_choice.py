"""Which boxes are shown to the fusion MLLM: the sources merged, and a sample that favours small objects.

The paper merges its detectors' boxes and samples them "balanced" towards small objects (DenseFusion, section 3.2.1)
without saying how. What is here is our rule, with the paper's order of printing; docs/experts.md shows its effect.
"""

import math
from typing import Literal

from pydantic import Field, model_validator

from fusion.priors import Box, Priors
from fusion.untrusted import clean
from schemas.section import Section

_MAX_LABEL_CHARS = 80


class BoxChoiceSection(Section):
    """How the boxes of all sources become the ones that are shown."""

    max_boxes: int = Field(
        20, ge=0, le=500, description="boxes shown; the paper's examples have 8 and 10, its limit is not stated"
    )
    merge_iou: float = Field(
        0.6, gt=0, le=1, description="boxes of one label that overlap this much are one object: the best score stays"
    )
    merge_iou_across: float | None = Field(
        None,
        gt=0,
        le=1,
        description="boxes of different labels that overlap this much are one object, too: the best score's label "
        "stays; null keeps a box for each label",
    )
    sampling: Literal["balanced", "score", "area"] = Field(
        "balanced",
        description="which boxes are shown where there are more. balanced: in turn from small, medium and large ones, "
        "best score first; score: the best scores; area: the largest",
    )
    small_area: float = Field(0.01, gt=0, lt=1, description="a box below this share of the image is small")
    medium_area: float = Field(0.1, gt=0, lt=1, description="a box below this share is medium, others are large")

    @model_validator(mode="after")
    def _classes_rise(self) -> "BoxChoiceSection":
        if self.medium_area < self.small_area:
            raise ValueError(f"medium_area ({self.medium_area:g}) must not be below small_area ({self.small_area:g})")
        return self


def choose_boxes(priors: Priors, section: BoxChoiceSection) -> list[Box]:
    """The boxes to show, in descending area, labels cleaned, corners within 0..1 at three decimals.

    1. Boxes without an area at three decimals, or without a label, go.
    2. Best score first, closed set before open set, a box goes that overlaps a kept one of its label by `merge_iou`
       or one of another label by `merge_iou_across`.
    3. Where more than `max_boxes` are left, `sampling` says which stay.
    """
    kept: list[Box] = []
    alike: dict[str, list[Box]] = {}
    for box in sorted(_usable([*(priors.closed_set or []), *(priors.open_set or [])]), key=lambda b: -b["score"]):
        same = alike.setdefault(box["label"].casefold(), [])
        # Crowded pictures have thousands of boxes; those of other labels are looked at only where they may merge.
        if not any(same_object(box, other, section) for other in (kept if section.merge_iou_across else same)):
            kept.append(box)
            same.append(box)
    return sorted(_sample(kept, section), key=lambda b: (-area(b), b["label"], b["x1"], b["y1"], b["x2"], b["y2"]))


def area(box: Box) -> float:
    """Fraction of the image that a box covers."""
    return (box["x2"] - box["x1"]) * (box["y2"] - box["y1"])


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes; 0 where neither has an area."""
    width = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    height = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    shared = max(width, 0.0) * max(height, 0.0)
    union = area(a) + area(b) - shared
    return shared / union if union else 0.0


def same_object(a: Box, b: Box, section: BoxChoiceSection) -> bool:
    """Whether two boxes are merged: one label by `merge_iou`, different ones by `merge_iou_across`."""
    alike = a["label"].casefold() == b["label"].casefold()
    least = section.merge_iou if alike else section.merge_iou_across
    return least is not None and iou(a, b) >= least


def _usable(boxes: list[Box]) -> list[Box]:
    out: list[Box] = []
    for box in boxes:
        label = clean(box["label"], _MAX_LABEL_CHARS)
        corners = (box["x1"], box["y1"], box["x2"], box["y2"])
        if not label or not all(map(math.isfinite, corners)):
            continue
        # 0.0 first: of two equal values max takes the first, and -0.0 would be printed with its sign.
        x1, y1, x2, y2 = (round(min(max(0.0, v), 1.0), 3) for v in corners)
        if x2 > x1 and y2 > y1:
            out.append(Box(**{**box, "label": label, "x1": x1, "y1": y1, "x2": x2, "y2": y2}))
    return out


def _sample(boxes: list[Box], section: BoxChoiceSection) -> list[Box]:
    """At most `max_boxes` of boxes that come best score first."""
    match section.sampling:
        case "score":
            return boxes[: section.max_boxes]
        case "area":
            return sorted(boxes, key=lambda b: -area(b))[: section.max_boxes]
        case "balanced":
            return _balanced(boxes, section)


def _balanced(boxes: list[Box], section: BoxChoiceSection) -> list[Box]:
    """Drawn in turn from the size classes, the smallest first."""
    if len(boxes) <= section.max_boxes:
        return boxes
    classes: list[list[Box]] = [[], [], []]
    for box in boxes:
        classes[(area(box) >= section.small_area) + (area(box) >= section.medium_area)].append(box)
    chosen: list[Box] = []
    while len(chosen) < section.max_boxes:
        for members in classes:
            if members and len(chosen) < section.max_boxes:
                chosen.append(members.pop(0))
    return chosen
