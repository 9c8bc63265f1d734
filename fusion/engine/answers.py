"""What is asked of an engine, and what comes back."""

import json
from dataclasses import dataclass
from typing import Any


class BadInputError(ValueError):
    """A row's messages cannot be made (its image does not decode); the row fails alone."""


@dataclass(frozen=True)
class Draw:
    """How one answer is sampled, where it is not as the others are."""

    temperature: float
    seed: int


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        boxes: x1, y1, x2, y2 of each, 0 to 1 of the picture in the messages, for an engine that looks at boxes
            (`fusion.checkpoint.takes_boxes`); None for any other.
        affinity: questions of one affinity go to one engine where there are several, whose cache then knows their
            beginning; empty goes anywhere.
        draw: None samples as the client does.
    """

    messages: list[dict[str, Any]]
    boxes: list[list[float]] | None = None
    affinity: str = ""
    draw: Draw | None = None


@dataclass(frozen=True)
class Answer:
    """What the engine said, and the tokens it took."""

    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Failure:
    """Why a question has no answer.

    Attributes:
        asked: the engine had the request, so the row itself may be what felled it.
        own: the row's own fault (a refused request, an image that does not decode); the engine is not in question.
        later: neither row nor engine is in question; the same may be asked when the budget or the host allows it.
    """

    detail: str
    asked: bool = True
    own: bool = False
    later: bool = False


def answer_of(completion: bytes) -> Answer:
    """An answer from the JSON of a chat completion.

    Raises:
        ValueError: it is none.
    """
    try:
        said = json.loads(completion)
        choice, usage = said["choices"][0], said.get("usage") or {}
        message = choice["message"]
        return Answer(
            text=_whole(message.get("content") or message.get("refusal") or ""),
            finish_reason=str(choice.get("finish_reason") or "unknown"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(completion[:200].decode("utf-8", "replace")) from error


def _whole(text: str) -> str:
    """The text with U+FFFD for half a surrogate pair: JSON can hold one, where an answer was cut, and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
