"""What the families of text readers share: the section, and lines of text with their places. Adding a family is a file
of its own, a line in experts.ocr.FAMILIES, and in OcrSection its name and the fields that are its alone."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from experts.base import ExpertSection
from schemas.section import later, located, runtime

_FIELDS_OF = dict.fromkeys(("det_model", "det_revision", "rec_model", "rec_revision", "precision", "crops"), "ppocr")


class OcrSection(ExpertSection):
    """Text detector and recogniser."""

    family: Literal["rapidocr", "ppocr"] = Field(
        "rapidocr",
        description="rapidocr reads on the CPU, by ONNX Runtime, with the weights that its package ships; ppocr is the "
        "PP-OCR models of transformers, meant for a GPU",
    )
    det_model: str = located(
        "PaddlePaddle/PP-OCRv6_medium_det_safetensors",
        description="ppocr only: hub id (org/name) or local folder of a PP-OCR text detector in transformers' form",
    )
    det_revision: str | None = located(None, description="ppocr only: hub revision of det_model")
    rec_model: str = located(
        "PaddlePaddle/PP-OCRv6_small_rec_safetensors",
        description="ppocr only: hub id (org/name) or local folder of a PP-OCR text recogniser in transformers' form",
    )
    rec_revision: str | None = located(None, description="ppocr only: hub revision of rec_model")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="ppocr only: arithmetic of both models; the halves are meant for GPUs"
    )
    crops: int = runtime(
        64,
        ge=1,
        le=4096,
        description="ppocr only: lines read at once, of all images of a batch; another number may change a score's "
        "last bit",
    )
    threshold: float = later(
        0.5, ge=0, le=1, description="a line is kept where the confidence of its recognition is above this"
    )
    box_threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        description="lowest confidence of a text region; what lies below is never read, so another value reads anew",
    )
    side: int = Field(736, ge=32, le=4096, description="short side, in pixels, that the detector enlarges images to")
    threads: int = runtime(1, ge=1, le=64, description="rapidocr only: ONNX Runtime threads of one worker")

    @model_validator(mode="after")
    def _fits_the_family(self) -> "OcrSection":
        for name, family in _FIELDS_OF.items():
            if family != self.family and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for family {family} only, and the family is {self.family}: leave it out")
        if self.family == "rapidocr" and self.resources.gpus > 0:
            raise ValueError(
                "family rapidocr runs on the CPU and would hold a GPU for nothing: set perceive.ocr.resources.gpus=0, "
                "or perceive.ocr.family=ppocr"
            )
        return self


@dataclass(frozen=True)
class Line:
    """One line of text.

    Attributes:
        text: as the recogniser gives it; may be blank.
        score: confidence of the recognition, 0..1.
        quad: float (4, 2), px of the canvas, clockwise from the text's upper left corner.
    """

    text: str
    score: float
    quad: np.ndarray


class Reader(ABC):
    """One family: canvases to lines of text."""

    def __init__(self, config: OcrSection) -> None:
        self.config = config

    @abstractmethod
    def models(self) -> dict[str, str]:
        """Identity of the weights. Raises RequestError where they are not there."""

    @abstractmethod
    def open(self, device: str) -> None:
        """Load the weights on `cpu` or `cuda`. Raises SetupError."""

    @abstractmethod
    def prepare(self, canvas: np.ndarray) -> Any:
        """What `read` takes of one canvas, uint8 (h, w, 3) RGB (see experts.readers.layout.on_canvas). Thread-safe."""

    def bucket(self, prepared: Any) -> Hashable:
        """Canvases of equal buckets can share a batch."""
        return None

    @abstractmethod
    def read(self, prepared: list[Any]) -> list[list[Line]]:
        """The lines of every canvas, in any order, whatever their confidence."""

    @abstractmethod
    def close(self) -> None:
        """Give the models' memory back."""
