"""What experts located in an image, as shapes to draw over it. An expert is known by the columns of its table."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """One located thing.

    Attributes:
        points: SVG points, in percent of the image's width and height.
        left, top: where its label goes, in percent.
        label: what the expert says it is.
        score: confidence 0..1, or None where the expert states none.
    """

    points: str
    left: float
    top: float
    label: str
    score: float | None


def shapes(prior: dict[str, Any]) -> list[Shape]:
    """Shapes of one expert's row: `boxes` (tables.BOX), `regions`, `phrases` (the same) and `lines`
    (tables.TEXT_LINE)."""
    # Florence states no scores; its tables hold 1.
    scored = "regions" not in prior
    boxes = [box for column in ("boxes", "regions", "phrases") for box in prior.get(column) or []]
    found = [_shape(_corners(b), b["label"], b["score"] if scored else None) for b in boxes]
    for line in prior.get("lines") or []:
        corners = list(zip(line["polygon"][::2], line["polygon"][1::2], strict=True))
        found.append(_shape(corners, line["text"], line["score"] if scored else None))
    return found


def _corners(box: dict[str, Any]) -> list[tuple[float, float]]:
    x1, y1, x2, y2 = box["x1"], box["y1"], box["x2"], box["y2"]
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def _shape(corners: list[tuple[float, float]], label: str, score: float | None) -> Shape:
    percent = [(100 * x, 100 * y) for x, y in corners]
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in percent)
    return Shape(points, min((x for x, _ in percent), default=0), min((y for _, y in percent), default=0), label, score)
