"""What the families of taggers share: the section, and labels with a score each. Adding a family is a file of its own,
a line in experts.tags.FAMILIES, and in TagsSection its name and the fields that are its alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from experts.base import ModelExpertSection
from schemas.section import later, located

OPEN_CLIP_MODEL = "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"
RAM_PLUS_MODEL = "xinyu1205/recognize-anything-plus-model"
_FIELDS_OF = {
    "labels": ("open_clip", "ram_plus"),
    "template": ("open_clip",),
    "score": ("open_clip",),
    "channels": ("timm",),
    "thresholds": ("ram_plus",),
    "descriptions": ("ram_plus",),
    "text_model": ("ram_plus",),
}
FLOORS = {"open_clip": 0.001, "timm": 0.05, "ram_plus": 0.3}
"""Lowest score stored where the section names none; of RAM++'s own thresholds the least is 0.45."""


class TagsSection(ModelExpertSection):
    """Tags."""

    family: Literal["open_clip", "timm", "ram_plus"] = Field(
        "open_clip",
        description="what the model is: open_clip, which scores any list of labels; timm, a multi-label classifier "
        "that knows its own; ram_plus, the paper's tagger, whose tag list and thresholds lie beside its checkpoint",
    )
    model: str = located(
        OPEN_CLIP_MODEL,
        description="hub id (org/name) or local folder of an open_clip model; for timm, of one in the form in which "
        "timm saves: config.json with label_names, or selected_tags.csv beside it, and model.safetensors; for "
        "ram_plus, the official checkpoint: a .pth file, a folder that holds it, or its hub id",
    )
    labels: tuple[str, ...] | str | None = located(
        None,
        description="open_clip and ram_plus: the labels, or a text file with one a line; null takes the list of "
        "everyday nouns we ship, for ram_plus ram_tag_list.txt beside the checkpoint",
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
    thresholds: str | None = located(
        None,
        description="ram_plus only: the checkpoint's own thresholds, a text file with one a line in the order of the "
        "labels; null takes ram_tag_list_threshold.txt beside the checkpoint, or 0.5 for tags from descriptions",
    )
    descriptions: str | None = located(
        None,
        description="ram_plus only: a JSON file of tags and sentences that describe them, [{tag: [sentence, ...]}, ...]"
        "; these tags are then looked for in place of the checkpoint's own (open-set recognition)",
    )
    text_model: str = located(
        "ViT-B-16",
        description="ram_plus with descriptions: the CLIP whose text tower embeds them, an open_clip name (OpenAI's "
        "weights), hub id or local folder; RAM++ was trained with CLIP ViT-B/16",
    )
    floor: float | None = Field(
        None,
        ge=0,
        le=1,
        description="lowest score that is stored; null takes 0.001 for open_clip, 0.05 for timm, 0.3 for ram_plus",
    )
    keep: int = Field(100, ge=1, le=5000, description="most labels stored of an image, best first")
    threshold: float | None = later(
        None,
        ge=0,
        le=1,
        description="a tag needs a score above this; null takes the checkpoint's own, tag by tag, where it has a list, "
        "else 0.01 for open_clip, 0.35 for timm",
    )
    tag_thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = later(
        {}, description="thresholds of single tags, {tag: threshold}, which go before all others"
    )
    top_k: int = later(20, ge=1, le=1000, description="most tags an image gets")

    @model_validator(mode="after")
    def _fields_are_the_familys(self) -> "TagsSection":
        for name, families in _FIELDS_OF.items():
            if self.family not in families and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is for family {' and '.join(families)} only, and the family is {self.family}: leave it out"
                )
        if self.family != "open_clip" and self.model == OPEN_CLIP_MODEL:
            hint = f"RAM++'s is {RAM_PLUS_MODEL}" if self.family == "ram_plus" else "set model to its hub id or folder"
            raise ValueError(f"family {self.family} needs a model of its own: {hint}")
        if self.descriptions is not None and self.labels is not None:
            raise ValueError("descriptions name the tags, and so do labels: leave one of them out")
        given = [*self.tag_thresholds.values(), *([] if self.threshold is None else [self.threshold])]
        if given and min(given) < self.lowest:
            raise ValueError(
                f"threshold {min(given):g} is below the lowest score that is stored, {self.lowest:g}: set floor as low,"
                " which runs the model again"
            )
        return self

    @property
    def lowest(self) -> float:
        """The lowest score that is stored."""
        return FLOORS[self.family] if self.floor is None else self.floor


class Tagger(ABC):
    """One family: pictures to scores of labels.

    Attributes:
        config_file: the file by which a local folder is known as this family's.
        threshold: score above which a label is a tag where neither the section nor the checkpoint says.
        labels: names in the order of the scores; set by `open`.
        thresholds: the checkpoint's own, float32 of (labels,), or None where it has none; set by `open`.
        transform: RGB picture to float32 tensor (3, h, w), the same shape for every picture; thread-safe; by `open`.
    """

    config_file: ClassVar[str]
    threshold: ClassVar[float]
    labels: list[str]
    thresholds: np.ndarray | None = None
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
