"""What the experts say about one image, as the prompt and the checks read it."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast


class Tag(TypedDict):
    tag: str
    score: float


class Box(TypedDict):
    """Corners are fractions of the image's width and height; `anchor` is its number (schemas.tables.BOX)."""

    expert: str
    anchor: int
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


class Nearness(TypedDict):
    """How near what a box holds is: 0 is the image's farthest place, 1 its nearest (schemas.tables.OBJECT_DEPTH)."""

    expert: str
    anchor: int
    nearness: float
    band: Literal["near", "middle", "far"]


@dataclass(frozen=True)
class Priors:
    """Priors of one image. None: the expert is off or failed on this image; an empty list: it looked and saw nothing.

    Attributes:
        depths: of the boxes, nearest first.
        description: Florence-2's own caption.
        description_lines: text that Florence-2 read.
        others: rows of experts that have no place of their own here, by name; a template's `user` block finds them as
            `experts`.
    """

    tags: list[Tag] | None = None
    closed_set: list[Box] | None = None
    open_set: list[Box] | None = None
    lines: list[TextLine] | None = None
    depths: list[Nearness] | None = None
    description: str | None = None
    description_lines: list[TextLine] | None = None
    others: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: dict[str, dict[str, Any]]) -> "Priors":
        """From one decided row per expert, by expert name; a row that holds an error counts as missing."""
        good = {name: row for name, row in rows.items() if row["error"] is None}

        def value(expert: str, column: str) -> Any:
            return good[expert].get(column) if expert in good else None

        def boxes(expert: str) -> list[Box] | None:
            if expert not in good:
                return None
            return [cast(Box, {**row, "expert": expert}) for row in good[expert]["boxes"]]

        return cls(
            tags=value("tags", "tags"),
            closed_set=boxes("closed_set"),
            open_set=boxes("open_set"),
            lines=value("ocr", "lines"),
            depths=value("depth", "objects"),
            description=value("florence", "caption"),
            description_lines=value("florence", "lines"),
            others={name: row for name, row in good.items() if name not in _KNOWN},
        )

    def seen_text(self) -> list[str] | None:
        """Every line of text that an expert read; None where no expert looked for text."""
        if self.lines is None and self.description_lines is None:
            return None
        return [line["text"] for line in (*(self.lines or []), *(self.description_lines or []))]


_KNOWN = {"tags", "closed_set", "open_set", "ocr", "depth", "florence"}
