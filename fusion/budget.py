"""How much of the engine's window a prompt may take, so that no engine refuses a row for its length.

    max_model_len >= image_tokens + reserve + system + user + box tokens + max_tokens

Text is counted by the engine's own tokenizer where the model is a folder, or where the server is ours: it has loaded
the model's files from the Hub by then. An engine given by URL says nothing of its tokenizer; there `budget.tokenizer`
names one, or tokens are estimated from above.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from fusion.engine import EngineSection
from fusion.tokens import Estimate, ModelTokenizer, TokenCounter, fetched_tokenizer_file, tokenizer_file
from schemas.identity import file_sha256, model_identity
from schemas.section import ModelRef, Section


class BudgetSection(Section):
    """What a prompt may take of the engine's window, and which notes go last where it takes more."""

    image_tokens: int = Field(
        576,
        ge=0,
        le=1_000_000,
        description="most tokens that one image takes in the engine; LLaVA-1.5: 576, LLaVA-1.6: 2928, Qwen2.5-VL: "
        "(image_max_side / 28) squared",
    )
    reserve: int = Field(64, ge=0, le=10_000, description="tokens left for what the chat template adds")
    tokenizer: ModelRef | None = Field(
        None,
        description="model whose tokenizer.json counts the text; null takes the engine's own where `model` is a folder "
        "or the server is started here, and else estimates",
    )
    chars_per_token: float = Field(
        3.0, ge=1, le=10, description="letters of a word to a token, for the estimate; 1 is safe for any language"
    )
    keep_lines: int = Field(10, ge=0, le=1000, description="lines of text, best scores first, that go last but boxes")
    keep_boxes: int = Field(10, ge=0, le=500, description="boxes, best scores first, that go last of all")


@dataclass(frozen=True)
class Budget:
    """The room for the text of one request.

    Attributes:
        tokens: for system text and user text together.
        counter: what counts them.
        box_tokens: that every box adds which is sent beside the text.
        keep_lines, keep_boxes: see BudgetSection.
    """

    tokens: int
    counter: TokenCounter
    box_tokens: int = 0
    keep_lines: int = 10
    keep_boxes: int = 10


def budget_of(section: BudgetSection, engine: EngineSection, max_tokens: int, box_tokens: int) -> Budget:
    """The budget of an engine's requests; a tokenizer that `section` names is fetched where it is on the Hub.

    Raises:
        RequestError: the tokenizer that is named cannot be had.
    """
    return Budget(
        engine.max_model_len - section.image_tokens - section.reserve - max_tokens,
        _counter(section, engine),
        box_tokens,
        section.keep_lines,
        section.keep_boxes,
    )


def counts_as_the_worker(section: BudgetSection, engine: EngineSection) -> bool:
    """Whether this machine counts as a caption worker will, without asking the Hub."""
    named = section.tokenizer or (engine if engine.base_url is None else None)
    return named is None or Path(named.model).is_dir() or tokenizer_file(named) is not None


def _counter(section: BudgetSection, engine: EngineSection) -> TokenCounter:
    if section.tokenizer is not None:
        return ModelTokenizer(fetched_tokenizer_file(section.tokenizer))
    own = tokenizer_file(engine) if engine.base_url is None or Path(engine.model).is_dir() else None
    return ModelTokenizer(own) if own is not None else Estimate(section.chars_per_token)


def tokenizer_identity(section: BudgetSection, engine: EngineSection) -> str | None:
    """What a fingerprint must hold of the tokenizer; None where the engine's own identity says it all, or none counts.

    Raises:
        RequestError: the folder that is named does not exist.
    """
    named = section.tokenizer or (engine if engine.base_url is not None else None)
    if named is not None and Path(named.model).is_dir():
        file = tokenizer_file(named)
        return f"file:{file_sha256(file)}" if file is not None else None
    return model_identity(section.tokenizer) if section.tokenizer is not None else None


def least_that_fits(most: int, fits: Callable[[int], bool]) -> int | None:
    """The least of 0..most that fits, where what fits goes on to fit; None where not even `most` does.

    Tokenizers merge across borders, so `fits` may waver by a token: what is returned was seen to fit.
    """
    if fits(0):
        return 0
    if not fits(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
