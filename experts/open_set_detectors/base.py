"""What the families of open-set detectors share: the section, and boxes with a score for each tag asked about. Adding
a family is a file of its own, a line in experts.open_set.FAMILIES, and in OpenSetSection its name and the fields that
are its alone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from experts.base import ModelExpertSection, Pixels
from schemas.section import later, located

OWLV2_MODEL = "google/owlv2-large-patch14-ensemble"
GROUNDING_DINO_MODEL = "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det"


class OpenSetSection(ModelExpertSection):
    """Open-set detector."""

    family: Literal["owlv2", "grounding_dino"] = Field(
        "owlv2",
        description="what the model is: owlv2, the paper's, which scores each tag on its own; grounding_dino "
        "(MM-Grounding-DINO too), which reads all tags together",
    )
    model: str = located(
        OWLV2_MODEL,
        description="hub id (org/name) or local folder of a model of the family in transformers' form; for "
        f"grounding_dino for example {GROUNDING_DINO_MODEL}",
    )
    prefix: str = Field("a photo of ", description="owlv2 only: put before a tag to make the detector's query")
    max_queries: int = Field(
        100,
        ge=1,
        le=1000,
        description="most tags asked about, best first, of all that the tagger stored; grounding_dino reads 256 tokens "
        "at once and is run again for the tags beyond them",
    )
    floor: float = Field(0.1, ge=0, le=1, description="a box is stored with every tag that scores above this")
    keep: int = Field(
        1000,
        ge=1,
        le=10_000,
        description="most pairs of box and tag stored of an image, best first; where it cuts, what is decided later is "
        "exact down to the score of the last one stored",
    )
    threshold: float = later(0.2, ge=0, le=1, description="a box needs a score above this; not below floor")
    nms_iou: float = later(
        0.2, ge=0, le=1, description="boxes of one label that overlap a better one more than this go; 1 lets all stay"
    )
    cap: Literal["mg_llava", "hard"] = later(
        "mg_llava",
        description="what happens to more than cap_above boxes: mg_llava keeps the best cap_per_label of every label, "
        "which may still be more; hard keeps the best cap_above of all, which MG-LLaVA does not do",
    )
    cap_above: int = later(100, ge=0, description="the cap applies only when more boxes than this survive")
    cap_per_label: int = later(
        20, ge=1, description="mg_llava only: best boxes kept of each label when the cap applies"
    )

    @model_validator(mode="after")
    def _fields_fit(self) -> "OpenSetSection":
        if self.family != "owlv2" and self.prefix != type(self).model_fields["prefix"].default:
            raise ValueError(f"prefix is for family owlv2 only, and the family is {self.family}: leave it out")
        if self.family != "owlv2" and self.model == OWLV2_MODEL:
            raise ValueError(
                f"family {self.family} needs a model of its own, such as {GROUNDING_DINO_MODEL}: set model"
            )
        if self.threshold < self.floor:
            raise ValueError(
                f"threshold {self.threshold:g} is below the lowest score that is stored, floor {self.floor:g}: set "
                "floor as low, which runs the model again"
            )
        return self


@dataclass(frozen=True)
class Scored:
    """What a detector says of one picture: pairs of box and tag, in any order, boxes not yet cut to the picture.

    Attributes:
        tags: (n,) integers, places in the list of tags asked about.
        scores: (n,) float32, all above the section's floor.
        boxes: (n, 4) x1 y1 x2 y2, fractions of the picture.
        anchors: (n,) integers; pairs of one anchor have one box.
    """

    tags: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    anchors: np.ndarray

    @staticmethod
    def nothing() -> "Scored":
        return Scored(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4)), np.zeros(0, np.int64))


class OpenDetector(ABC):
    """One family: pictures and the tags to look for to scored boxes.

    Attributes:
        model_types: as config.json of the family's models states them.
    """

    model_types: ClassVar[tuple[str, ...]]

    def __init__(self, config: OpenSetSection) -> None:
        self.config = config

    @abstractmethod
    def open(self, device: str) -> None:
        """Load the weights on `cpu` or `cuda`. Raises SetupError."""

    @abstractmethod
    def least(self) -> tuple[int, int] | None:
        """As experts.base.Expert.least."""

    @abstractmethod
    def prepare(self, image: Image.Image) -> Pixels:
        """What `look` takes of an RGB picture; thread-safe."""

    @abstractmethod
    def look(self, prepared: list[Pixels], tags: list[list[str]]) -> list[Scored]:
        """What is seen of each picture's own tags. The pictures' tensors are of one shape."""

    @abstractmethod
    def close(self) -> None:
        """Give the model's memory back."""


def above(scores: Any, floor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns, values) of a tensor (anchors, tags) above the floor, in its order."""
    rows, columns = (scores > floor).nonzero(as_tuple=True)
    return rows.cpu().numpy(), columns.cpu().numpy(), scores[rows, columns].cpu().numpy()
