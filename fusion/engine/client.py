"""Asking an engine over the OpenAI chat API: many rows at once, every row with an answer or a failure of its own."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from schemas.section import Section

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MessageList = list[dict[str, Any]]
# The request itself is at fault; asking again or elsewhere changes nothing.
_ROW_FAULTS = {400, 413, 415, 422}
_RETRIED = {408, 409, 425, 429}
_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 30.0


class BadInputError(ValueError):
    """A row's messages cannot be made (its image does not decode); the row fails alone."""


class SamplingSection(Section):
    """How the engine picks tokens."""

    max_tokens: int = Field(512, ge=1, le=32_768, description="most tokens of an answer")
    temperature: float = Field(0.0, ge=0, le=2, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the distribution that is sampled from")
    seed: int = Field(0, ge=0, description="of the sampling; the same for every row")
    repetition_penalty: float = Field(1.0, gt=0, le=2, description="vLLM's; 1 is none, and then it is not sent")


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        boxes: x1, y1, x2, y2 of each, 0 to 1 of the picture in the messages, for an engine that looks at boxes
            (`fusion.checkpoint.takes_boxes`); None for any other.
    """

    messages: MessageList
    boxes: list[list[float]] | None = None


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
    """Why a row has no answer.

    Attributes:
        asked: the engine had the request, so the row itself may be what felled it.
        own: the row's own fault (a refused request, an image that does not decode); the engine is not in question.
    """

    detail: str
    asked: bool = True
    own: bool = False


class ChatClient:
    """A bounded number of requests at once, finite retries, answers in the order of the questions.

    Args:
        base_url: of the API, up to and with `/v1`.
        concurrency: requests under way at once.
        timeout_s: for one attempt, from connecting to the last byte.
        retries: further attempts after 408, 409, 425, 429, 5xx, a lost connection or an answer that is no completion.
            An attempt that ran into its deadline is not repeated: greedy decoding would take as long again.
        alive: whether the engine's process lives; once it does not, nothing more is tried.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        sampling: SamplingSection,
        *,
        concurrency: int,
        timeout_s: float,
        retries: int,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self._base_url, self._api_key, self._model = base_url, api_key, model
        self._sampling = sampling
        self._concurrency, self._timeout_s, self._retries = concurrency, timeout_s, retries
        self._alive = alive

    def ask(self, questions: Sequence[Callable[[], Question]]) -> list[Answer | Failure]:
        """One answer or failure per question, in order.

        Questions are made when their turn comes, off the event loop, so that the encoded images of a whole shard are
        never in memory at once. An exception of a question that is no BadInputError is raised.
        """
        return asyncio.run(self._ask_all(questions))

    async def _ask_all(self, questions: Sequence[Callable[[], Question]]) -> list[Answer | Failure]:
        places = asyncio.Semaphore(self._concurrency)

        async def one(make: Callable[[], Question]) -> Answer | Failure:
            async with places:
                if not self._alive():
                    return Failure("the engine's process is gone", asked=False)
                try:
                    question = await asyncio.to_thread(make)
                except BadInputError as error:
                    return Failure(str(error), asked=False, own=True)
                return await self._ask(client, question)

        async with self._client() as client:
            return await asyncio.gather(*(one(make) for make in questions))

    @contextlib.asynccontextmanager
    async def _client(self) -> "AsyncIterator[AsyncOpenAI]":
        from openai import AsyncOpenAI

        # Retries are ours: theirs go on for a dead engine, and repeat what ran into its deadline.
        async with AsyncOpenAI(
            base_url=self._base_url, api_key=self._api_key, max_retries=0, timeout=self._timeout_s
        ) as client:
            yield client

    async def _ask(self, client: "AsyncOpenAI", question: Question) -> Answer | Failure:
        from openai import APIConnectionError, APIStatusError, OpenAIError

        last = ""
        for attempt in range(self._retries + 1):
            wait = _BACKOFF_S * 2**attempt * random.uniform(0.75, 1.25)
            try:
                async with asyncio.timeout(self._timeout_s):
                    return _answer(await self._complete(client, question))
            except TimeoutError:
                return Failure(f"no answer within {self._timeout_s:g} s")
            except APIStatusError as error:
                last = f"HTTP {error.status_code}: {_words(error)}"
                if error.status_code in _ROW_FAULTS:
                    return Failure(last, own=True)
                if error.status_code < 500 and error.status_code not in _RETRIED:
                    return Failure(last)
                wait = max(wait, _retry_after(error))
            except APIConnectionError as error:
                last = f"connection failed: {error.__cause__ or error}"
            except (OpenAIError, ValueError) as error:
                last = f"the answer is no chat completion: {error}"
            if not self._alive():
                break
            if attempt < self._retries:
                await asyncio.sleep(min(wait, _MAX_BACKOFF_S))
        return Failure(last)

    async def _complete(self, client: "AsyncOpenAI", question: Question) -> Any:
        sampling = self._sampling
        # What vLLM understands beyond OpenAI's API is sent only where it says something.
        further: dict[str, Any] = {}
        if sampling.repetition_penalty != 1.0:
            further["repetition_penalty"] = sampling.repetition_penalty
        if question.boxes is not None:
            further["mm_processor_kwargs"] = {"boxes": [question.boxes]}
        return await client.chat.completions.create(
            model=self._model,
            messages=question.messages,  # type: ignore[arg-type]
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            extra_body=further or None,
        )


def _answer(completion: Any) -> Answer:
    """Raises ValueError where the body is not a chat completion: the library does not check it."""
    choices = getattr(completion, "choices", None)
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if choice is None or message is None:
        raise ValueError(str(completion)[:200])
    usage = completion.usage
    details = usage.prompt_tokens_details if usage else None
    return Answer(
        text=message.content or "",
        finish_reason=choice.finish_reason or "unknown",
        prompt_tokens=usage.prompt_tokens if usage else 0,
        cached_tokens=(details.cached_tokens or 0) if details else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )


def _words(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error.response.text or error.message).split())[:300]


def _retry_after(error: Any) -> float:
    """Seconds the server asks for; 0 where it says nothing, or a date."""
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0
