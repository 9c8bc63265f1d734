"""How the engine picks tokens, and the body of a request that says so."""

from typing import Any

from pydantic import Field

from fusion.engine.answers import Draw, Question
from schemas.section import Section


class SamplingSection(Section):
    """How the engine picks tokens."""

    max_tokens: int = Field(512, ge=1, le=32_768, description="most tokens of an answer")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the distribution that is sampled from")
    seed: int = Field(0, ge=0, description="of the sampling; the same for every row")
    repetition_penalty: float = Field(1.0, gt=0, le=2, description="vLLM's; 1 is none, and then it is not sent")


def request_body(
    model: str, question: Question, sampling: SamplingSection, limit: str = "max_tokens", **further: Any
) -> dict[str, Any]:
    """The body of a chat completion.

    Only what says something is in it: some hosted engines refuse a request for a seed, or for `top_p` beside
    `temperature`, and none but vLLM knows `repetition_penalty`. Greedy decoding takes notice of neither of the former.

    Args:
        limit: the engine's name for the most tokens of an answer.
        further: fields that every engine that is meant here understands.
    """
    draw = question.draw or Draw(sampling.temperature, sampling.seed)
    body = {"model": model, "messages": question.messages, "temperature": draw.temperature}
    body |= {limit: sampling.max_tokens, **further}
    if draw.temperature > 0:
        body |= {"top_p": sampling.top_p, "seed": draw.seed}
    if sampling.repetition_penalty != 1.0:
        body["repetition_penalty"] = sampling.repetition_penalty
    if question.boxes is not None:
        body["mm_processor_kwargs"] = {"boxes": [question.boxes]}
    return body
