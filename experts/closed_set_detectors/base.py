"""What the families of closed-set detectors share: the section, and pictures in, measured rows out. Adding a family is
a file of its own, a line in experts.closed_set.FAMILIES, and in ClosedSetSection its name and the fields that are its
alone."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Literal

from PIL import Image
from pydantic import Field, model_validator

from experts.base import Context, ModelExpertSection, Prior
from schemas.section import later, located

_FIELDS_OF = {
    "model": "detr",
    "revision": "detr",
    "precision": "detr",
    "compile": "detr",
    "boxes": "file",
    "key": "file",
    "frame": "file",
    "missing": "file",
}


class ClosedSetSection(ModelExpertSection):
    """Closed-set detector."""

    family: Literal["detr", "file"] = Field(
        "detr",
        description="where boxes come from: detr, a transformers detector that knows its own labels; file, what a "
        "detector outside of this program found, in MG-LLaVA's format",
    )
    model: str = located(
        "PekingU/rtdetr_v2_r101vd",
        description="detr only: hub id (org/name) or local folder of an object detection model, such as RT-DETRv2, "
        "D-FINE, DETR or Deformable DETR",
    )
    # float16 is left out: RT-DETRv2 cast to it answers with finite but wrong scores, and so with no boxes.
    precision: Literal["float32", "bfloat16"] = Field("float32", description="detr only: arithmetic of the model")
    boxes: tuple[str, ...] | str | None = located(
        None,
        description="file only: a file or several: a JSON list, or .jsonl, of records {id, boxes: [[x1, y1, x2, y2] in "
        "pixels, ...], scores, labels}; boxes that several files have for one image are joined",
    )
    key: Literal["uid", "url", "sha256"] = Field(
        "uid",
        description="file only: what a record's id is: the row's uid, its URL, or the sha256 of its image's bytes",
    )
    frame: Literal["upright", "stored"] = Field(
        "upright",
        description="file only: the picture that the pixels count in: upright, with its EXIF orientation applied (as "
        "detectron2 reads it), or stored, without (as MG-LLaVA's script reads it)",
    )
    missing: Literal["error", "empty"] = Field(
        "error",
        description="file only: what a row without a record gets: an error, which is counted, or no boxes",
    )
    floor: float = Field(0.05, ge=0, le=1, description="boxes that score above this are stored")
    keep: int = Field(300, ge=1, le=2000, description="most boxes stored of an image, best first")
    threshold: float = later(0.5, ge=0, le=1, description="a box needs a score above this; not below floor")
    max_boxes: int = later(100, ge=1, le=2000, description="best boxes kept of an image")

    @model_validator(mode="after")
    def _fields_fit(self) -> "ClosedSetSection":
        for name, family in _FIELDS_OF.items():
            if self.family != family and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for family {family} only, and the family is {self.family}: leave it out")
        if self.family == "file" and not self.boxes:
            raise ValueError("family file needs boxes: set it to the file with the boxes")
        if self.threshold < self.floor:
            raise ValueError(
                f"threshold {self.threshold:g} is below the lowest score that is stored, floor {self.floor:g}: set "
                "floor as low, which measures again"
            )
        return self


class ClosedDetector(ABC):
    """One family: pictures to boxes with labels of its own."""

    def __init__(self, config: ClosedSetSection) -> None:
        self.config = config

    @abstractmethod
    def models(self) -> dict[str, str]:
        """Identity of what decides the boxes. Raises RequestError where it is not there or of no use."""

    @abstractmethod
    def open(self, device: str) -> None:
        """Load on `cpu` or `cuda`. Raises SetupError."""

    @abstractmethod
    def least(self) -> tuple[int, int] | None:
        """As experts.base.Expert.least."""

    @abstractmethod
    def prepare(self, image: Image.Image) -> Any:
        """What `look` takes of an RGB picture; thread-safe."""

    @abstractmethod
    def bucket(self, prepared: Any) -> Hashable:
        """As experts.base.Expert.bucket."""

    @abstractmethod
    def look(self, prepared: list[Any], contexts: list[Context]) -> list[Any]:
        """What is found in each picture, as `finish` takes it."""

    @abstractmethod
    def finish(self, looked: Any) -> list[Prior]:
        """Rows of schemas.tables.BOX above the section's floor, best first, at most `keep`; thread-safe."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back."""
