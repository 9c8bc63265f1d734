"""Settings of the caption stage."""

from pydantic import Field, model_validator

from fusion.budget import BudgetSection
from fusion.checks import ChecksSection, FindingKind
from fusion.engine import EngineSection, SamplingSection
from fusion.prompt import PromptSection
from schemas.section import StageSection, runtime
from stages.spend import SpendSection
from stages.structured import StructuredSection


class CaptionSection(StageSection, SamplingSection):
    """The prompt, the engine, and what becomes of captions with faults."""

    engine: EngineSection = Field(description="which model answers, and how its server is run")
    prompt: PromptSection = Field(PromptSection(), description="how priors become a prompt")
    budget: BudgetSection = Field(BudgetSection(), description="what a prompt may take of the engine's window")
    structured: StructuredSection | None = Field(
        None, description="answers are JSON of a schema, to which the engine's decoding is held; null is plain text"
    )
    checks: ChecksSection = Field(ChecksSection(), description="where the checks draw their lines")
    reject_on: list[FindingKind] = Field(
        [FindingKind.EMPTY, FindingKind.MALFORMED], description="findings that stop a row with reason caption_rejected"
    )
    repair_on: list[FindingKind] = Field(
        [], description="findings that are given back to the model, once; its second answer stands where it has fewer"
    )
    repair_tries: int = Field(
        1, ge=1, le=16, description="answers that are drawn to the findings at most, until one has none of `repair_on`"
    )
    repair_temperature: float = Field(
        0.5, gt=0, le=2, description="at which those after the first are sampled; that one is as captions are"
    )
    require_priors: bool = Field(
        True, description="stop a row that an expert failed on; false captions it without that prior"
    )
    image_max_side: int = Field(
        1536, ge=32, le=16_384, description="pixels; a longer image is sent to the engine scaled down to it"
    )
    spend: SpendSection | None = runtime(None, description="prices and budget of a hosted engine; null counts no money")
    concurrency: int = runtime(64, ge=1, le=4096, description="requests under way at once")
    request_timeout_s: float = runtime(
        600.0, gt=0, le=86_400, description="seconds for one attempt of a request, waiting inside the engine included"
    )
    retries: int = runtime(4, ge=0, le=20, description="further attempts after 5xx or a lost connection")

    @model_validator(mode="after")
    def _deterministic_is_greedy(self) -> "CaptionSection":
        if self.engine.deterministic and self.temperature > 0:
            raise ValueError("engine.deterministic needs temperature 0")
        if self.engine.deterministic and self.repair_tries > 1:
            raise ValueError("engine.deterministic needs repair_tries 1: further answers are sampled")
        return self
