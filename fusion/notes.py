"""What a prompt shows of one image, and the order in which it goes where there is no room for all of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TypeVar

from fusion.priors import Box

T = TypeVar("T")


@dataclass(frozen=True)
class Cut:
    """What the budget took away of what the settings would have shown.

    Attributes:
        lines, boxes, tags: how many.
        description_chars, alt_chars: characters, at the end of Florence-2's caption and of the alt text.
        too_long: the prompt is over its budget even so; its template prints what cannot be cut.
    """

    lines: int = 0
    boxes: int = 0
    tags: int = 0
    description_chars: int = 0
    alt_chars: int = 0
    too_long: bool = False

    def __bool__(self) -> bool:
        return any(asdict(self).values())


@dataclass(frozen=True)
class Line:
    """A line of text as it is shown, and how sure its reader was."""

    text: str
    score: float


@dataclass(frozen=True)
class Notes:
    """What one row's prompt shows, in the order of printing. Texts are cleaned."""

    short_caption: str = ""
    boxes: Sequence[Box] = ()
    tags: Sequence[str] = ()
    description: str = ""
    lines: Sequence[Line] = ()


class Shortening:
    """The notes with ever more of them taken away, step by step, in one order:

    1. lines of text beyond the best `keep_lines`, the lowest score first;
    2. boxes beyond the best `keep_boxes`, the lowest score first;
    3. tags, the last first (they come best first);
    4. Florence-2's caption, from its end;
    5. alt text, from its end;
    6. the lines that were kept, the lowest score first;
    7. the boxes that were kept, the lowest score first.

    Of equal scores the one that is printed later goes first. What stays keeps its order. A step is one line, box, tag
    or character.
    """

    def __init__(self, notes: Notes, keep_lines: int, keep_boxes: int) -> None:
        self._notes = notes
        lines, boxes = len(notes.lines), len(notes.boxes)
        self._phases = (
            ("lines", max(0, lines - keep_lines)),
            ("boxes", max(0, boxes - keep_boxes)),
            ("tags", len(notes.tags)),
            ("description", len(notes.description)),
            ("short_caption", len(notes.short_caption)),
            ("lines", min(lines, keep_lines)),
            ("boxes", min(boxes, keep_boxes)),
        )

    @property
    def steps(self) -> int:
        """After so many nothing is left."""
        return sum(size for _, size in self._phases)

    def after(self, steps: int) -> Notes:
        gone = dict.fromkeys(("lines", "boxes", "tags", "description", "short_caption"), 0)
        for kind, size in self._phases:
            taken = min(size, steps)
            gone[kind] += taken
            steps -= taken
        notes = self._notes
        return replace(
            notes,
            short_caption=_first_words(notes.short_caption, len(notes.short_caption) - gone["short_caption"]),
            boxes=_without(notes.boxes, self._worst_boxes[: gone["boxes"]]),
            tags=notes.tags[: len(notes.tags) - gone["tags"]],
            description=_first_words(notes.description, len(notes.description) - gone["description"]),
            lines=_without(notes.lines, self._worst_lines[: gone["lines"]]),
        )

    def cut(self, left: Notes, too_long: bool) -> Cut:
        """What lies between all notes and those that are left."""
        all_of = self._notes
        return Cut(
            lines=len(all_of.lines) - len(left.lines),
            boxes=len(all_of.boxes) - len(left.boxes),
            tags=len(all_of.tags) - len(left.tags),
            description_chars=len(all_of.description) - len(left.description),
            alt_chars=len(all_of.short_caption) - len(left.short_caption),
            too_long=too_long,
        )

    @cached_property
    def _worst_lines(self) -> list[int]:
        return _worst([line.score for line in self._notes.lines])

    @cached_property
    def _worst_boxes(self) -> list[int]:
        return _worst([box["score"] for box in self._notes.boxes])


def _worst(scores: Sequence[float]) -> list[int]:
    """Places in order of their score, the lowest first, later ones before earlier ones."""
    return sorted(range(len(scores)), key=lambda i: (scores[i], -i))


def _without(items: Sequence[T], places: Sequence[int]) -> Sequence[T]:
    if not places:
        return items
    gone = set(places)
    return [item for i, item in enumerate(items) if i not in gone]


def _first_words(text: str, chars: int) -> str:
    """At most so many characters, whole words where there is a space to end at."""
    if chars >= len(text):
        return text
    start = text[:chars]
    if not text[chars].isspace() and " " in start:
        start = start[: start.rindex(" ")]
    return start.rstrip()
