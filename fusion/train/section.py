"""What a training can be told. Recipes that ship with the package lie in `fusion/train/recipes`."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fusion.prompt import PromptSection
from schemas.errors import RequestError
from schemas.section import ModelRef, Section, located, runtime
from schemas.settings import Shelf, validated

RECIPES = Shelf("fusion", "train/recipes", "recipe", "learning_rate=2e-5")
QUESTION = "Describe this image in detail."

Group = Literal["connector", "gate", "vision", "vision_upper_half", "detail", "language_model"]
"""Names of sets of parameters; `fusion.train.trainable` says which parameters they are."""


class ModelSection(Section):
    """What is trained: a checkpoint to go on from, a stock LLaVA to start from, or parts with a fresh connector."""

    checkpoint: ModelRef | None = Field(None, description="a fusion model, by folder or hub id, to go on from")
    llava: ModelRef | None = Field(
        None, description="a LLaVA-1.5 or LLaVA-NeXT checkpoint of transformers, whose weights the model takes over"
    )
    vision: ModelRef | None = Field(None, description="the tower: CLIP, SigLIP, or Florence-2 for `dbfusion`")
    detail: ModelRef | None = Field(None, description="the convolutional tower of `conv_gate`: a timm model")
    text: ModelRef | None = Field(None, description="a causal language model with its tokenizer")
    connector: str | None = Field(None, description="null: `mlp` for parts, else what the checkpoint has")
    connector_options: dict[str, Any] = Field({}, description="fields of the connector's options; published defaults")
    image_grid_pinpoints: list[Annotated[list[int], Field(min_length=2, max_length=2)]] | None = Field(
        None, description="sizes [height, width] that a picture may be tiled to (AnyRes); null: one canvas a picture"
    )
    fit: Literal["pad", "crop", "stretch"] | None = Field(
        None, description="how a picture becomes a square; null: what the checkpoint has, `pad` for new models"
    )
    image_mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = Field(
        None, description="of RGB from 0 to 1; null: as the tower's own image processor says"
    )
    image_std: Annotated[list[float], Field(min_length=3, max_length=3)] | None = Field(
        None, description="as image_mean"
    )
    max_boxes: int = Field(100, ge=1, le=1000, description="boxes of one picture that become tokens")

    @model_validator(mode="after")
    def _one_start(self) -> "ModelSection":
        parts = self.vision is not None or self.text is not None or self.detail is not None
        starts = [self.checkpoint is not None, self.llava is not None, parts]
        if sum(starts) != 1:
            raise ValueError("give one of: checkpoint; llava; vision and text (and detail)")
        if parts and (self.vision is None or self.text is None):
            raise ValueError("a model of parts needs both vision and text")
        return self


class _Source(Section):
    limit: int | None = Field(None, ge=1, description="rows taken, drawn at random by the seed; null takes all")


class LLaVASource(_Source):
    """LLaVA's conversations: a JSON array or JSONL of id, image (a path or several; none for text alone) and
    conversations of from (human, gpt) and value."""

    format: Literal["llava"]
    path: str = located(description="JSON or JSONL file")
    images: str = located(".", description="folder that the image paths start from")
    boxes: str | None = located(
        None, description="MG-LLaVA's box file (id, boxes in pixels, scores, labels), for connectors that take boxes"
    )
    system: str | None = Field(
        None, description="system message of each conversation; empty: none; null: the template's own"
    )


class DenseFusionSource(_Source):
    """A released DenseFusion file: JSONL of image_id, image_path, caption."""

    format: Literal["densefusion"]
    path: str = located(description="JSONL file")
    images: str = located(".", description="folder of the images, found as image, image_path or <image_id>.png")
    question: str = Field(QUESTION, description="what is asked, in templates that ask")


class _CaptionSource(_Source):
    prompt: PromptSection | None = Field(
        None, description="how alt text and priors become the prompt, as `caption.prompt` has it; null: only ask"
    )
    question: str = Field(QUESTION, description="what is asked where there is no prompt")


class WebDatasetSource(_CaptionSource):
    """Shards as `package` writes them: <uid>.jpg, <uid>.txt with the caption, <uid>.json with alt_text and priors."""

    format: Literal["webdataset"]
    path: str = located(description="dataset folder, a tar, or a pattern of tars")


class RowsSource(_CaptionSource):
    """JSONL of image (a path), caption, and if known alt_text and priors ({expert: row}, as `package` writes them).

    A repair has `first`, too, the answer with faults, and its `findings` ({kind, detail}, as `package` writes them)."""

    format: Literal["rows"]
    path: str = located(description="JSONL file")
    images: str = located(".", description="folder that the image paths start from")


SourceSection = Annotated[
    LLaVASource | DenseFusionSource | WebDatasetSource | RowsSource, Field(discriminator="format")
]


class DataSection(Section):
    """What is learnt from."""

    sources: list[SourceSection] = Field(min_length=1, description="files to learn from; their rows are mixed")
    max_bad_rows: float = runtime(
        0.01, ge=0, le=1, description="share of rows that may be unusable before the training stops"
    )
    workers: int = runtime(4, ge=0, le=64, description="processes that load rows, for each training process")


class TrainSection(Section):
    """Everything a training can be told."""

    name: str = runtime("fusion", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="shown in the model card")
    notes: list[str] = runtime([], description="what differs from the publication, printed in the model card")
    output: str = runtime(description="folder of checkpoints, log and, at the end, the model")
    model: ModelSection = Field(description="what is trained")
    data: DataSection = Field(description="what is learnt from")
    template: str = located(
        "vicuna_v1",
        min_length=1,
        description="template of fusion/train/templates, path of a .jinja file, or `tokenizer` for its own",
    )
    max_length: int = Field(2048, ge=8, le=1_000_000, description="tokens of a row, visual ones included")
    trainable: list[Group] = Field(min_length=1, description="parameters that are trained; all others are frozen")
    learning_rate: float = Field(gt=0, lt=1, description="peak, of groups that `learning_rates` does not name")
    learning_rates: dict[Group, Annotated[float, Field(gt=0, lt=1)]] = Field({}, description="peak, by group")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of the steps in which the rate rises to its peak")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="of the rate after its peak")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's; biases and norms have none")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999), description="AdamW's"
    )
    clip_norm: float = Field(1.0, ge=0, description="the gradient's norm is cut to this; 0 cuts nothing")
    batch_size: int = Field(256, ge=1, description="rows of one step over all processes and accumulation")
    per_device_batch: int = runtime(
        16, ge=1, description="rows that one process takes at once; the rest of a step is accumulated"
    )
    epochs: float = Field(1.0, gt=0, le=1000, description="passes over the rows")
    max_steps: int | None = Field(None, ge=1, description="steps, in place of epochs")
    group_by_length: bool = Field(
        False, description="batches of rows of like length, those with pictures apart from those of text alone"
    )
    seed: int = Field(42, ge=0, lt=2**32, description="of a fresh connector's weights and of the rows' order")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "bf16", description="of the arithmetic; trained weights are fp32"
    )
    save_precision: Literal["fp32", "bf16", "fp16"] = Field("bf16", description="of the finished model's weights")
    gradient_checkpointing: bool = runtime(True, description="compute activations again rather than keep them")
    sharding: Literal["none", "fsdp", "zero2", "zero3"] = runtime(
        "none", description="what several GPUs share: nothing, all by FSDP, or DeepSpeed's ZeRO stages"
    )
    device: Literal["auto", "cpu"] = runtime("auto", description="auto takes the GPUs that are there")
    log_every: int = runtime(10, ge=1, description="steps between two lines of the log")
    save_every: int = runtime(500, ge=1, description="steps between two checkpoints")
    keep: int = runtime(
        2, ge=2, le=1000, description="checkpoints that stay; the oldest goes after the newest is whole"
    )

    @field_validator("trainable")
    @classmethod
    def _each_once(cls, groups: list[Group]) -> list[Group]:
        if len(set(groups)) != len(groups):
            raise ValueError("each group once")
        return groups

    @model_validator(mode="after")
    def _rates_of_trained(self) -> "TrainSection":
        if frozen := sorted(set(self.learning_rates) - set(self.trainable)):
            raise ValueError(f"learning_rates names {', '.join(frozen)}, which `trainable` does not")
        if self.batch_size % self.per_device_batch:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of per_device_batch ({self.per_device_batch})"
            )
        return self

    def accumulation(self, processes: int) -> int:
        """Micro-batches of a step on each of so many processes.

        Raises:
            RequestError: a step cannot be cut so.
        """
        at_once = self.per_device_batch * processes
        if self.batch_size % at_once:
            raise RequestError(
                f"batch_size {self.batch_size} cannot be made of per_device_batch {self.per_device_batch} on "
                f"{processes} processes: it must be a multiple of {at_once}. Set per_device_batch to a divisor of "
                f"{self.batch_size / processes:g}."
            )
        return self.batch_size // at_once


def load_section(source: str, overrides: list[str]) -> TrainSection:
    """The section of a recipe's name or a YAML file, with `key.path=value` overrides.

    Raises:
        RequestError: the file is missing or is not YAML, a key is unknown, a value is out of bounds.
    """
    return validated(TrainSection, RECIPES.read(source, overrides), source)
