"""What the families of taggers share: the section, and labels with a score each. Adding a family is a file of its own,
a line in experts.tags.FAMILIES, and in TagsSection its name and the fields that are its alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from experts.base import ModelExpertSection
from schemas.section import located

OPEN_CLIP_MODEL = "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"
_FIELDS_OF = {"labels": "open_clip", "template": "open_clip", "score": "open_clip", "channels": "timm"}


class TagsSection(ModelExpertSection):
    """Tags."""

    family: Literal["open_clip", "timm"] = Field(
        "open_clip",
        description="what the model is: open_clip, which scores any list of labels, or timm, a multi-label classifier "
        "that knows its own",
    )
    model: str = located(
        OPEN_CLIP_MODEL,
        description="hub id (org/name) or local folder of an open_clip model; for timm, of one in the form in which "
        "timm saves: config.json with label_names, or selected_tags.csv beside it, and model.safetensors",
    )
    labels: tuple[str, ...] | str | None = located(
        None,
        description="open_clip only: the labels, or a text file with one a line; null takes the list of everyday nouns "
        "we ship",
    )
    template: str = Field("a photo of {}", description="open_clip only: text that stands for a label; {} is the label")
    score: Literal["probability", "cosine"] = Field(
        "probability",
        description="open_clip only: softmax over all labels at the model's own temperature, or the plain cosine",
    )
    channels: Literal["rgb", "bgr"] = Field(
        "rgb",
        description="timm only: order of the colours; taggers trained on OpenCV's images take bgr, which their folders "
        "do not say",
    )
    threshold: float | None = Field(
        None, ge=0, le=1, description="lowest score that makes a tag; null takes 0.01 for open_clip, 0.35 for timm"
    )
    top_k: int = Field(20, ge=1, le=1000, description="most tags an image gets")

    @model_validator(mode="after")
    def _fields_are_the_familys(self) -> "TagsSection":
        for name, family in _FIELDS_OF.items():
            if family != self.family and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for family {family} only, and the family is {self.family}: leave it out")
        if self.family != "open_clip" and self.model == OPEN_CLIP_MODEL:
            raise ValueError(f"family {self.family} needs a model of its own: set model to its hub id or folder")
        return self


class Tagger(ABC):
    """One family: pictures to scores of labels.

    Attributes:
        config_file: the file by which a local folder is known as this family's.
        thresholds: lowest score that makes a tag where the section names none; one for all labels, or one each.
        labels: names in the order of the scores; set by `open`.
        transform: RGB picture to float32 tensor (3, h, w), the same shape for every picture; set by `open`.
    """

    config_file: ClassVar[str]
    thresholds: float | np.ndarray
    labels: list[str]
    transform: Callable[[Image.Image], Any]

    def __init__(self, config: TagsSection) -> None:
        self.config = config

    def models(self) -> dict[str, str]:
        """Identity of what decides the tags beside the weights. Raises RequestError where it is not there."""
        return {}

    @abstractmethod
    def open(self, device: str) -> None:
        """Load the weights on `cpu` or `cuda`. Raises SetupError, and RequestError for labels that do not do."""

    @abstractmethod
    def scores(self, pixels: Any) -> Any:
        """float32 tensor (n, labels), from transformed pictures (n, 3, h, w) on the device and in the precision."""

    @abstractmethod
    def close(self) -> None:
        """Give the model's memory back."""
