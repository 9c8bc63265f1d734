"""What an evaluation can be told."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fusion.budget import BudgetSection
from fusion.engine import EngineSection, SamplingSection
from fusion.prompt import PromptSection
from schemas.section import ModelRef, Section, located, runtime
from schemas.settings import Shelf, validated

RECIPES = Shelf("fusion", "evaluate/recipes", "evaluation", "captioners.mine.path=captions.jsonl")

Shown = Literal["everything", "alt_text", "priors", "nothing"]
"""Which notes about a picture a captioner is given."""


class FileCaptioner(Section):
    """Captions that are there: JSONL of uid and caption."""

    kind: Literal["file"]
    path: str = located(description="JSONL file; a caption for each row of the truth")


class _Shown(Section):
    notes: Shown = Field("everything", description="which notes about a picture it is given")
    prompt: PromptSection | None = Field(None, description="how they are put; null takes `prompt` of the evaluation")


class PriorsCaptioner(_Shown):
    """No model: the notes copied out as a list, the least that a captioner must beat."""

    kind: Literal["priors"]


class EngineCaptioner(SamplingSection, _Shown):
    """An OpenAI API: a vLLM server that is started here, or one that runs at `engine.base_url`."""

    kind: Literal["engine"]
    engine: EngineSection = Field(description="which model answers, and how its server is run")
    budget: BudgetSection = Field(BudgetSection(), description="what a prompt may take of the engine's window")
    image_max_side: int = Field(1344, ge=32, le=8192, description="pixels of the longer edge of pictures that are sent")
    device: Literal["cpu", "cuda"] = runtime("cpu", description="where a server that is started here computes")
    concurrency: int = runtime(64, ge=1, le=4096, description="requests under way at once")
    timeout_s: float = runtime(600.0, gt=0, description="for one answer")
    retries: int = runtime(2, ge=0, le=20, description="further attempts at an answer")


class CheckpointCaptioner(ModelRef, _Shown):
    """A checkpoint of ours, or another that takes pictures and has a chat template, run by transformers; greedy."""

    kind: Literal["checkpoint"]
    max_tokens: int = Field(512, ge=1, le=32_768, description="most tokens of a caption")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="weights and arithmetic")
    batch_size: int = runtime(8, ge=1, le=1024, description="pictures at once")
    device: Literal["cpu", "cuda"] = runtime("cpu", description="where it computes")


CaptionerSection = Annotated[
    FileCaptioner | PriorsCaptioner | EngineCaptioner | CheckpointCaptioner, Field(discriminator="kind")
]


class ClipSection(Section):
    """The model of CLIP score."""

    model: str = located(description="open_clip's own name (ViT-B-32), a hub id (org/name), or a folder")
    pretrained: str | None = Field(None, description="weights tag of one of open_clip's own names")
    batch_size: int = runtime(64, ge=1, le=4096, description="pictures at once")
    device: Literal["cpu", "cuda"] = runtime("cpu", description="where it computes")


class EvaluateSection(Section):
    """Everything an evaluation can be told."""

    truth: str = located(description="JSONL of what is true of each picture")
    vocabulary: str = located(description="YAML of the words by which captions are understood")
    images: str = located(".", description="folder that the paths of pictures start from")
    limit: int | None = Field(None, ge=1, description="the first so many rows; null takes all")
    captioners: dict[str, CaptionerSection] = Field(
        min_length=1, description="name to where its captions come from; the first is what others are compared with"
    )
    prompt: PromptSection = Field(PromptSection(), description="how notes become a prompt, as `caption.prompt` has it")
    clip: ClipSection | None = Field(None, description="also CLIP score, by this model; null leaves it out")
    resamples: int = Field(2000, ge=100, le=1_000_000, description="bootstrap resamples of the pictures")
    level: float = Field(0.95, gt=0, lt=1, description="share of resamples within an interval")
    seed: int = Field(0, ge=0, description="of the resamples")
    output: str | None = runtime(None, description="folder that gets the captions as NAME.jsonl; null keeps none")

    @model_validator(mode="after")
    def _names_are_files(self) -> "EvaluateSection":
        for name in self.captioners:
            if not name or set(name) & set("/\\") or name.startswith("."):
                raise ValueError(f"captioners: {name!r} cannot name a file")
        return self


def load_section(source: str, overrides: list[str]) -> EvaluateSection:
    """The section of a YAML file, with `key.path=value` overrides.

    Raises:
        RequestError: the file is missing or is not YAML, a key is unknown, a value is out of bounds.
    """
    return validated(EvaluateSection, RECIPES.read(source, overrides), source)
