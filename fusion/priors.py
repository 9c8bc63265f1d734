"""What the experts said about one image, as the prompt and the checks read it."""

from dataclasses import dataclass
from typing import Any, TypedDict


class Tag(TypedDict):
    tag: str
    score: float


class Box(TypedDict):
    """Corners are fractions of the image's width and height (schemas.tables.BOX)."""

    label: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


class TextLine(TypedDict):
    text: str
    score: float
    polygon: list[float]


@dataclass(frozen=True)
class Priors:
    """Priors of one image. None: the expert is off or failed on this image; an empty list: it looked and saw nothing.

    Attributes:
        disparity_png: 16-bit greyscale PNG, larger is nearer (schemas.tables.DEPTH_PRIOR).
        description: Florence-2's own caption.
        description_lines: text that Florence-2 read.
    """

    tags: list[Tag] | None = None
    closed_set: list[Box] | None = None
    open_set: list[Box] | None = None
    lines: list[TextLine] | None = None
    disparity_png: bytes | None = None
    description: str | None = None
    description_lines: list[TextLine] | None = None

    @classmethod
    def of(cls, rows: dict[str, dict[str, Any]]) -> "Priors":
        """From one prior row per expert, by expert name; a row that holds an error counts as missing.

        Experts that are not listed here have no place in a prompt yet and are passed over.
        """
        good = {name: row for name, row in rows.items() if row["error"] is None}

        def value(expert: str, column: str) -> Any:
            return good[expert].get(column) if expert in good else None

        return cls(
            tags=value("tags", "tags"),
            closed_set=value("closed_set", "boxes"),
            open_set=value("open_set", "boxes"),
            lines=value("ocr", "lines"),
            disparity_png=value("depth", "disparity_png"),
            description=value("florence", "caption"),
            description_lines=value("florence", "lines"),
        )

    def seen_text(self) -> list[str] | None:
        """Every line of text that an expert read; None where no expert looked for text."""
        if self.lines is None and self.description_lines is None:
            return None
        return [line["text"] for line in (*(self.lines or []), *(self.description_lines or []))]
