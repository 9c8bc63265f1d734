"""What is true of a scene: the answers that a vision expert or a caption is held against."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in px of the upright picture; x2 and y2 are exclusive."""


Condition = Literal["clean", "rotated", "blurred", "faint"]
"""How well a sign can be read."""


@dataclass(frozen=True)
class ObjectTruth:
    """One object.

    Attributes:
        category: one of `demo.shapes.CATEGORIES`.
        colour: a name of `demo.palette.OBJECT_COLOURS`.
        size: small, medium or large for its class.
        full_box: as if nothing stood before it and the frame were larger; may leave the frame.
        visible_box: around the pixels that can be seen.
        occlusion: share 0..1 of its pixels inside the frame that nearer objects hide.
        distance: m from the camera.
        text: what a sign says, its lines joined by a space; None for everything else.
        condition: of a sign's lettering; None for everything else.
    """

    category: str
    colour: str
    size: str
    full_box: Box
    visible_box: Box
    occlusion: float
    distance: float
    text: str | None = None
    condition: Condition | None = None


@dataclass(frozen=True)
class SceneTruth:
    """One scene; `objects` are ordered from near to far, signs among them.

    `seed`, `width` and `height` render the same scene again.
    """

    seed: int
    setting: str
    width: int
    height: int
    horizon: float
    objects: tuple[ObjectTruth, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SceneTruth":
        objects = [
            ObjectTruth(**{**o, "full_box": tuple(o["full_box"]), "visible_box": tuple(o["visible_box"])})
            for o in data["objects"]
        ]
        return cls(**{**data, "objects": tuple(objects)})
