"""What the families of score models share: the section, and pictures to one number each.

Adding a family is a file of its own, a line in experts.score.FAMILIES, and in ScoreSection its name and the fields that
are its alone. LAION's heads are named like this:

    aesthetic: {weights: sac+logos+ava1-l14-linearMSE.pth}, or sa_0_4_vit_l_14_linear.pth of version 1
    nsfw: {family: clip_head, model: laion/CLIP-ViT-H-14-laion2B-s32B-b79K, weights: h14_nsfw.pth}
    watermark: {family: timm, model: efficientnet_b3, weights: watermark_model_v1.pt, label: 0, side: 256}

The files lie in the GitHub repositories christophschuhmann/improved-aesthetic-predictor, LAION-AI/aesthetic-predictor,
LAION-AI/CLIP-based-NSFW-Detector and LAION-AI/LAION-5B-WatermarkDetection, whose own loaders are where layouts,
pre-processing and the meaning of outputs come from.
"""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

from PIL import Image
from pydantic import Field, field_validator, model_validator

from experts.base import ModelExpertSection
from experts.weights_file import expanded, read_weights, weights_identity
from schemas.errors import SetupError
from schemas.section import located

_FIELDS_OF = {
    "pretrained": ("clip_head",),
    "weights": ("clip_head", "timm"),
    "weights_revision": ("clip_head", "timm"),
    "activation": ("clip_head", "timm"),
    "output": ("clip_head",),
    "label": ("transformers", "timm"),
    "side": ("timm",),
}


class ScoreSection(ModelExpertSection):
    """One number an image."""

    family: Literal["clip_head", "transformers", "timm"] = Field(
        "transformers",
        description="what the model is: clip_head, linear layers over an open_clip model's image embedding of unit "
        "length; transformers, an image classifier of that library; timm, one of timm's architectures with a file of "
        "its weights",
    )
    model: str = located(
        description="clip_head: one of open_clip's own names, a hub id (org/name) or a local folder; transformers: a "
        "hub id or local folder; timm: the architecture's name"
    )
    pretrained: str | None = located(
        None, description="clip_head only: open_clip's weights tag, where model is one of its own names"
    )
    weights: str | None = located(
        None,
        description="clip_head: the head, timm: the whole model; a local file, or one of the hub as org/name/FILE, as "
        "torch or safetensors save it: a state dict, or one under `state_dict`, `weights` or `model`; layers and sizes "
        "are read off it",
    )
    weights_revision: str | None = located(None, description="clip_head and timm: hub revision of weights")
    activation: Literal["none", "relu"] | None = Field(
        None,
        description="clip_head and timm: what stands between the layers of the head, wherever the numbers of the "
        "file's layers leave room for it; null takes relu where there is room for it and a dropout at least once, else "
        "none",
    )
    output: Literal["plain", "sigmoid"] = Field(
        "plain", description="clip_head only: the head's number is the score, or the score's logit"
    )
    label: str | int | None = Field(
        None,
        description="transformers and timm: the class whose probability is the score, by name (in any case) or by "
        "number from 0; null takes a model's only output, or the class that has the expert's name",
    )
    side: int | None = Field(
        None,
        ge=16,
        le=2048,
        description="timm only: pictures are squeezed to a square of this side, px, by bilinear resizing; null takes "
        "what timm has for the architecture",
    )

    @field_validator("weights")
    @classmethod
    def _home(cls, weights: str | None) -> str | None:
        return None if weights is None else expanded(weights)

    @model_validator(mode="after")
    def _fields_are_the_familys(self) -> "ScoreSection":
        default = {name: field.default for name, field in type(self).model_fields.items()}
        for name, families in _FIELDS_OF.items():
            if self.family not in families and getattr(self, name) != default[name]:
                raise ValueError(
                    f"{name} is for family {' and '.join(families)} only, and the family is {self.family}: leave it out"
                )
        for name in ("model", "weights") if self.family in _FIELDS_OF["weights"] else ("model",):
            value = getattr(self, name)
            if value is None or (self.family != default["family"] and value == default[name]):
                raise ValueError(f"family {self.family} needs {name} of its own: set it")
        return self


class Scorer(ABC):
    """One family: pictures to one number each.

    Attributes:
        transform: RGB picture to float32 tensor (3, h, w), thread-safe; set by `open`.
    """

    transform: Callable[[Image.Image], Any]

    def __init__(self, expert: str, config: ScoreSection) -> None:
        self.expert = expert
        self.config = config

    @abstractmethod
    def models(self) -> dict[str, str]:
        """Identity of all weights. Raises RequestError where something local is missing."""

    @abstractmethod
    def open(self, device: str) -> None:
        """Load the weights on `cpu` or `cuda`. Raises SetupError where they cannot be had or do not fit."""

    @abstractmethod
    def scores(self, pixels: Any) -> Any:
        """float32 tensor (n,), from transformed pictures (n, 3, h, w) on the device and in the precision."""

    @abstractmethod
    def close(self) -> None:
        """Give the model's memory back."""

    def read_weights(self) -> dict[str, Any]:
        """The tensors in `weights`. Raises SetupError where the file cannot be had or read."""
        assert self.config.weights is not None
        try:
            return read_weights(self.config.weights, self.config.weights_revision)
        except Exception as error:  # of torch, pickle, safetensors, the hub
            raise self.refused(
                "weights",
                f"{self.config.weights} cannot be read: {type(error).__name__}: {shortened(error)}",
                "Give a state dict as torch or safetensors save it, in a local file or one of the hub (org/name/FILE)",
            ) from error

    def weights_identity(self) -> str:
        """What tells one file of weights from another. Raises RequestError where a local one is missing."""
        assert self.config.weights is not None
        return weights_identity(self.config.weights, self.config.weights_revision, f"perceive.{self.expert}.weights")

    def refused(self, setting: str, why: str, do: str) -> SetupError:
        """The one paragraph about a setting that does not do."""
        return SetupError(f"perceive.{self.expert}.{setting}: {why.rstrip('.')}. {do}.")


def shortened(error: Exception) -> str:
    """A library's own words in one line of at most 400 characters."""
    return textwrap.shorten(str(error), 400, placeholder=" ...")


class ClassScorer(Scorer):
    """Families whose models know several classes.

    Attributes:
        known: number of the class for models whose own names for their classes do not tell, by `model`.
    """

    known: ClassVar[dict[str, int]] = {}

    def class_number(self, names: Sequence[str] | int) -> int:
        """Which output is the score.

        Args:
            names: of the classes in order, or how many there are where they have no names.

        Raises:
            SetupError: no class goes by the label.
        """
        listed = [f"class {i}" for i in range(names)] if isinstance(names, int) else list(names)
        label = self.config.label
        if label is None and len(listed) == 1:
            return 0
        if isinstance(label, int):
            if 0 <= label < len(listed):
                return label
        else:
            lower = [name.lower() for name in listed]
            wanted = (label or self.expert).lower()
            if wanted in lower:
                return lower.index(wanted)
            if label is None and self.config.model in self.known:
                return self.known[self.config.model]
        has = ", ".join(f"{i}: {name}" for i, name in enumerate(listed))
        asked = f"{self.config.model} has no class {self.expert if label is None else label}"
        raise self.refused("label", f"{asked}; it has {has}", "Set label to a name or a number of these")
