"""What a vision expert is: upright RGB pictures in, prior rows out. It knows nothing of shards, stages or Ray.

An expert of one's own is a file with such a class, registered as an entry point of the group `densefusion.experts`
(docs/experts.md shows one whole); the built-in ones are listed in experts/registry.py.
"""

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
from PIL import Image
from pydantic import Field

from schemas.errors import SetupError
from schemas.identity import model_identity
from schemas.section import ModelRef, StageSection, runtime

Prior = dict[str, Any]
Context = dict[str, Prior]
"""Of one picture: the prior row of every expert that was asked for, by its name."""

ROW = "row"
"""Name under which a context holds what is known of the image itself: uid, url, sha256, width, height, orientation."""

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
    decode_threads: int | None = runtime(
        None,
        ge=1,
        le=256,
        description="threads that read, decode and prepare images while the model computes; null takes one for each of "
        "resources.cpus, at least 2",
    )
    decode: Literal["whole", "scaled"] = Field(
        "whole",
        description="scaled reads a JPEG at a half, a quarter or an eighth of its size where the model's input is no "
        "larger than that: several times faster, and other last digits than the library's own pipeline",
    )

    @property
    def decoders(self) -> int:
        """How many decode."""
        return self.decode_threads or max(2, int(self.resources.cpus))


class ModelExpertSection(ExpertSection, ModelRef):
    """Section of an expert whose weights come from the hub or a local folder."""

    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="arithmetic of the model; the halves are meant for GPUs"
    )
    compile: bool = runtime(
        False,
        description="torch.compile the model: faster after a slow first batch, worth it for long runs with few image "
        "shapes; may change a score's last bit; on a CPU it needs a C++ compiler",
    )


class Expert(ABC):
    """One vision model, and how its output becomes a prior: measured once, decided later.

    `prepare` turns a picture into what the model takes, in threads beside the model. `look` runs the model. `finish`
    makes what it gave a row, in threads again, with everything that was measured. `decide` applies the settings marked
    `later` (thresholds, caps) whenever the row is read, so that changing one of them runs no model again.

    Attributes:
        name: as in the configuration; its stage is `perceive.<name>`.
        version: raise it when the same config and images would now measure something else.
        rule: raise it when `decide` would now say something else of the same row.
        schema: the prior's columns, one of schemas.tables.
        section: its section of the configuration.
        about: one line on what it sees, for the reference of settings.
        on: whether it looks where a configuration does not mention it; needs a section that can do without values.
        rows_from: whose rows it looks at: those of `select`, or already those of `dedup` where `select` goes by it.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    rule: ClassVar[int] = 1
    schema: ClassVar[pa.Schema]
    section: ClassVar[type[ExpertSection]]
    about: ClassVar[str]
    on: ClassVar[bool] = False
    rows_from: ClassVar[Literal["select", "dedup"]] = "select"

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def needs(self) -> tuple[str, ...]:
        """Experts whose measured rows `look` takes; they must be on."""
        return ()

    def models(self) -> dict[str, str]:
        """Identity of the weights and lists that decide what is measured. Raises RequestError where one is missing."""
        return {"model": model_identity(self.config)} if isinstance(self.config, ModelRef) else {}

    def decisions(self) -> dict[str, Any]:
        """Everything that `decide` goes by: `later` settings, and the identity of files that they name."""
        return {"rule": self.rule, **self.config.decisions()}

    @abstractmethod
    def open(self, device: str) -> None:
        """Load the weights on `cpu` or `cuda`. Raises SetupError."""

    def least(self) -> tuple[int, int] | None:
        """(width, height) in pixels that `prepare` needs of a picture, for `decode: scaled`; None takes it whole."""
        return None

    def prepare(self, image: Image.Image) -> Any:
        """What `look` takes of one picture (RGB, upright): resized, normalised, a tensor, ... Thread-safe."""
        return image

    def bucket(self, prepared: Any) -> Hashable:
        """Pictures of equal buckets can share a batch."""
        return None

    @abstractmethod
    def look(self, prepared: list[Any], contexts: list[Context]) -> list[Any]:
        """What the model gives for each picture, as `finish` takes it.

        Args:
            prepared: by `prepare`, all of one bucket.
            contexts: per picture, the measured row of every expert in `needs`, and under ROW the image's own.
        """

    def finish(self, looked: Any) -> Prior:
        """The measured prior, from what `look` gave for one picture: the columns of `schema` but `uid` and `error`.

        For work that the model need not wait for: scaling, sorting, encoding. Thread-safe.
        """
        prior: Prior = looked
        return prior

    def decide(self, measured: Prior, context: Context) -> Prior:
        """What a measured row says at the `later` settings. Works on an expert that was never opened.

        Args:
            context: what the experts before this one say, decided.
        """
        return measured

    @abstractmethod
    def close(self) -> None:
        """Give the model's memory back."""

    def measure(self, images: list[Image.Image], contexts: list[Context] | None = None) -> list[Prior]:
        """Measured priors of pictures at hand, outside of a run; those of one bucket go through the model at once."""
        given: list[Context] = [{} for _ in images] if contexts is None else contexts
        prepared = [self.prepare(image) for image in images]
        buckets: dict[Hashable, list[int]] = {}
        for i, one in enumerate(prepared):
            buckets.setdefault(self.bucket(one), []).append(i)
        priors: dict[int, Prior] = {}
        for members in buckets.values():
            looked = self.look([prepared[i] for i in members], [given[i] for i in members])
            priors |= {i: self.finish(one) for i, one in zip(members, looked, strict=True)}
        return [priors[i] for i in range(len(images))]


@dataclass(frozen=True)
class Pixels:
    """A picture as a model takes it.

    Attributes:
        values: tensor of (channels, height, width), on the CPU.
        size: (width, height) of the picture itself, px.
    """

    values: Any
    size: tuple[int, int]


def stacked(prepared: list[Pixels], device: str, dtype: Any) -> Any:
    """Tensor (n, channels, height, width) of pictures of one shape, on the device."""
    import torch

    return torch.stack([one.values for one in prepared]).to(device, dtype, non_blocking=True)


@contextmanager
def loading(expert: str, ref: ModelRef, setting: str = "model") -> Iterator[None]:
    """Turn whatever a library raises while it loads weights into the one paragraph a user needs.

    Args:
        setting: of the expert's section, that names the model.
    """
    try:
        yield
    except Exception as error:
        revision = f" at revision {ref.revision}" if ref.revision else ""
        raise SetupError(
            f"perceive.{expert} could not load {ref.model}{revision}: {type(error).__name__}: "
            f"{textwrap.shorten(str(error), _LONGEST_REASON, placeholder=' ...').rstrip('.')}. "
            f"Set perceive.{expert}.{setting} to a folder that holds the model, or to a hub id that this machine can "
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


def compiled(model: Any, config: ModelExpertSection) -> Any:
    """The model, or a torch module or function of it, through torch.compile where the section says so."""
    if not config.compile:
        return model
    import torch

    return torch.compile(model)


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
