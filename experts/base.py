"""What a vision expert is: upright RGB images in, prior rows out. It knows nothing of shards, stages or Ray."""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import pyarrow as pa
from PIL import Image
from pydantic import Field

from schemas.errors import SetupError
from schemas.identity import model_identity
from schemas.section import ModelRef, StageSection, runtime

Prior = dict[str, Any]

_LONGEST_REASON = 400
"""Characters of a library's own words in an error; open_clip lists every model that it knows."""


class ExpertSection(StageSection):
    """What every expert's section has."""

    batch_size: int = runtime(
        8,
        ge=1,
        le=1024,
        description="images given to the model at once; halved when memory runs out; another size may change a score's "
        "last bit",
    )


class ModelExpertSection(ExpertSection, ModelRef):
    """Section of an expert whose weights come from the hub or a local folder."""

    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="arithmetic of the model; the halves are meant for GPUs"
    )


class Expert(ABC):
    """One vision model and how its output becomes a prior.

    Attributes:
        name: as in the configuration; its stage is `perceive.<name>`.
        version: raise it when the same config and images would now give other priors.
        schema: the prior's columns, one of schemas.tables.
        needs: experts whose priors it takes.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    schema: ClassVar[pa.Schema]
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ExpertSection) -> None:
        self.config = config

    def models(self) -> dict[str, str]:
        """Identity of the weights and lists that decide the output. Raises RequestError where one is not there."""
        return {"model": model_identity(self.config)} if isinstance(self.config, ModelRef) else {}

    @abstractmethod
    def open(self, device: str) -> None:
        """Load the weights on `cpu` or `cuda`. Raises SetupError."""

    @abstractmethod
    def look(self, images: list[Image.Image], context: list[dict[str, Prior]]) -> list[Prior]:
        """One prior per image: the columns of `schema` but `uid` and `error`.

        Args:
            images: RGB, upright.
            context: per image, the prior row of every expert in `needs`, by its name.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the model's memory back."""


@contextmanager
def loading(expert: str, ref: ModelRef) -> Iterator[None]:
    """Turn whatever a library raises while it loads weights into the one paragraph a user needs."""
    try:
        yield
    except Exception as error:
        revision = f" at revision {ref.revision}" if ref.revision else ""
        raise SetupError(
            f"perceive.{expert} could not load {ref.model}{revision}: {type(error).__name__}: "
            f"{textwrap.shorten(str(error), _LONGEST_REASON, placeholder=' ...').rstrip('.')}. "
            f"Set perceive.{expert}.model to a folder that holds the model, or to a hub id that this machine can "
            f"reach (HF_HOME names the cache, HF_TOKEN opens gated models), or switch the expert off with null."
        ) from error


def load_pretrained(
    expert: str, config: ModelExpertSection, processor: Any, model: Any, device: str
) -> tuple[Any, Any]:
    """(processor, model in eval mode on `device`) by the `from_pretrained` of two transformers classes.

    Raises:
        SetupError: either cannot be had or does not fit.
    """
    with loading(expert, config):
        loaded = model.from_pretrained(config.model, revision=config.revision, dtype=torch_dtype(config))
        return processor.from_pretrained(config.model, revision=config.revision), loaded.to(device).eval()


def torch_dtype(config: ModelExpertSection) -> Any:
    """The torch dtype that `precision` names."""
    import torch

    return getattr(torch, config.precision)


def finite(output: Any, expert: str) -> Any:
    """The tensor itself. NaN in scores or boxes would pass every threshold as "nothing seen".

    Raises:
        FloatingPointError: a value is NaN or infinite.
    """
    if not output.isfinite().all():
        raise FloatingPointError(f"the {expert} model gave values that are not finite; try precision float32")
    return output


def bounded(image: Image.Image, longest: int, aspect: float) -> Image.Image:
    """The image itself where it is ordinary, else resized to at most `longest` pixels and `aspect` long to short.

    Processors that keep the aspect ratio or pad to a square turn a 1 x 20,000 strip into gigabytes. Squeezing keeps
    normalised coordinates as they are.
    """
    width, height = image.size
    scale = min(1.0, longest / max(width, height))
    least = max(1, round(max(width, height) * scale / aspect))
    size = (max(least, round(width * scale)), max(least, round(height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
