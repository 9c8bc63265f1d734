"""Asking engines over the OpenAI chat API: many rows at once, every row with a result of its own."""

import asyncio
import contextlib
import functools
import random
import time
from collections.abc import AsyncIterator, Callable, Generator, Hashable, Sequence
from typing import Any, TypeVar

from fusion.engine.answers import Answer, BadInputError, Failure, Question
from fusion.engine.chat_api import CONNECT_S, ChatApi, RefusedError, UnreachableError, chat_api
from fusion.engine.endpoints import Endpoint, Endpoints
from fusion.engine.pace import Pace, retry_after
from fusion.engine.sampling import SamplingSection, request_body

T = TypeVar("T")
Talk = Generator[Question, Answer | Failure, T]
"""What is said about one row: yields a question, is sent what came of it, and returns what came of the row."""

# The request itself is at fault; asking again or elsewhere changes nothing.
_ROW_FAULTS = {400, 413, 415, 422}
_RETRIED = {408, 409, 425}
# Not so fast (429); overloaded, where it says until when (503), or by a status that some hosts made for it (529).
_TOO_FAST = {429, 503, 529}
# OpenAI's newer models want their limit by another name, which many other engines do not know.
_NEWER = "Use 'max_completion_tokens'"
_AHEAD = 4
"""For so many requests at once one more talk is begun, so that its question is ready when a place is free."""
_BACKOFF_S, _MAX_BACKOFF_S = 0.5, 30.0


class Hang:
    """What tells a hung engine from a busy one: its own count of its work stands still while questions wait.

    Args:
        progress: of the engine; a value that differs from the last where it has worked since.
        limit_s: seconds without progress and without an answer.
    """

    def __init__(self, progress: Callable[[], Hashable], limit_s: float) -> None:
        self.progress, self.limit_s = progress, limit_s
        self.found = False


_GONE = Failure("the engine's process is gone", asked=False)


class ChatClient:
    """A bounded number of requests at once, finite retries, results in the order of the rows.

    Args:
        endpoints: engines of the same model; a question that one of them cannot be reached for goes to another.
        concurrency: requests under way at once.
        timeout_s: for one attempt, from connecting to the last byte.
        retries: further attempts after 408, 409, 425, 5xx, a lost connection or an answer that is no completion. An
            attempt that ran into its deadline is not repeated: greedy decoding would take as long again. Refusals for
            the pace are waited out by `pace` and are not counted.
        pace: limits of a hosted engine.
        alive: whether the engine's process lives; once it does not, nothing more is tried.
        hang: ends all that is under way once the engine hangs.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        model: str,
        sampling: SamplingSection,
        *,
        concurrency: int,
        timeout_s: float,
        retries: int,
        further: dict[str, Any] | None = None,
        pace: Pace | None = None,
        alive: Callable[[], bool] = lambda: True,
        hang: Hang | None = None,
    ) -> None:
        self._endpoints, self._model, self._sampling = Endpoints(endpoints), model, sampling
        self._concurrency, self._timeout_s, self._retries = concurrency, timeout_s, retries
        self._further = further or {}
        self._pace = pace or Pace()
        self._alive = alive
        self._hang = hang
        self._limit = "max_tokens"
        self._answered = 0
        self._deadlines: set[asyncio.Timeout] = set()

    def ask(self, questions: Sequence[Callable[[], Question]]) -> list[Answer | Failure]:
        """One answer or failure per question, in order; questions are made a little before their turn."""

        def talk(make: Callable[[], Question]) -> Talk[Answer | Failure]:
            return (yield make())

        return self.converse([functools.partial(talk, make) for make in questions])

    def converse(self, talks: Sequence[Callable[[], Talk[T]]]) -> list[T | Failure]:
        """What each talk returns, in order; a failure where it raises BadInputError, or the engine is gone before it.

        Talks are begun a little before their turn and run off the event loop, so that the engine is not kept waiting
        and the encoded images of a whole shard are never in memory at once. Another exception of a talk ends them all
        and is raised.
        """
        return asyncio.run(self._converse_all(talks))

    async def _converse_all(self, talks: Sequence[Callable[[], Talk[T]]]) -> list[T | Failure]:
        results: list[T | Failure] = [Failure("not begun", asked=False)] * len(talks)
        waiting = iter(enumerate(talks))
        places = asyncio.Semaphore(self._concurrency)
        begun = self._concurrency + -(-self._concurrency // _AHEAD)

        async def one_after_another() -> None:
            for i, begin in waiting:
                results[i] = await self._converse(api, places, begin)

        watch = asyncio.create_task(self._watch(self._hang)) if self._hang else None
        try:
            async with chat_api(min(CONNECT_S, self._timeout_s)) as api:
                await asyncio.gather(*(one_after_another() for _ in range(min(begun, len(talks)))))
        finally:
            if watch:
                watch.cancel()
        return results

    async def _converse(self, api: ChatApi, places: asyncio.Semaphore, begin: Callable[[], Talk[T]]) -> T | Failure:
        if self._gone():
            return _GONE
        try:
            talk = begin()
            step: Any = await asyncio.to_thread(_step, talk, None)
            while isinstance(step, Question):
                async with places:
                    said = _GONE if self._gone() else await self._ask(api, step)
                step = await asyncio.to_thread(_step, talk, said)
        except BadInputError as error:
            return Failure(str(error), asked=False, own=True)
        return step.value

    def _gone(self) -> bool:
        return not self._alive() or (self._hang is not None and self._hang.found)

    async def _ask(self, api: ChatApi, question: Question) -> Answer | Failure:
        last, attempt, refusals, waited = "", 0, 0, 0.0
        while True:
            await self._pace.turn()
            backoff = min(_BACKOFF_S * 2 ** (attempt + refusals), _MAX_BACKOFF_S) * random.uniform(0.75, 1.25)
            endpoint, limit = self._endpoints.pick(question.affinity), self._limit
            try:
                async with self._deadline():
                    answer = await api.complete(endpoint, self._body(question))
                self._answered += 1
                self._pace.took(answer.prompt_tokens + answer.completion_tokens)
                return answer
            except TimeoutError:
                if self._hang and self._hang.found:
                    return Failure(f"the engine made no progress for {self._hang.limit_s:g} s")
                return Failure(f"no answer within {self._timeout_s:g} s")
            except RefusedError as error:
                last = str(error)
                if limit == "max_tokens" and _NEWER in last:
                    self._limit = "max_completion_tokens"
                    continue
                if error.status in _ROW_FAULTS:
                    return Failure(last, own=True)
                if (hold := _hold(error)) is not None:
                    hold = max(hold, backoff)
                    refusals, waited = refusals + 1, waited + hold
                    if waited > self._pace.patience_s or self._gone():
                        return Failure(last, later=not self._gone())
                    self._pace.hold(hold)
                    continue
                if error.status < 500 and error.status not in _RETRIED:
                    return Failure(last)
            except UnreachableError as error:
                last = f"connection failed: {error}"
                endpoint.rest()
            except ValueError as error:
                last = f"the answer is no chat completion: {error}"
            finally:
                endpoint.under_way -= 1
            attempt += 1
            if attempt > self._retries or self._gone():
                return Failure(last)
            await asyncio.sleep(backoff)

    def _body(self, question: Question) -> dict[str, Any]:
        return request_body(self._model, question, self._sampling, self._limit, **self._further)

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """Of one attempt; a hang brings it forward."""
        async with asyncio.timeout(self._timeout_s) as deadline:
            self._deadlines.add(deadline)
            try:
                yield
            finally:
                self._deadlines.discard(deadline)

    async def _watch(self, hang: Hang) -> None:
        """Ends everything under way once neither the engine's own count nor an answer has moved for too long."""
        last: Hashable = None
        since = time.monotonic()
        while True:
            await asyncio.sleep(hang.limit_s / 8)
            now = (self._answered, await asyncio.to_thread(hang.progress))
            if now != last or not self._deadlines:
                last, since = now, time.monotonic()
            elif time.monotonic() - since >= hang.limit_s:
                hang.found = True
                for deadline in self._deadlines:
                    deadline.reschedule(0)
                return


def _step(talk: Talk[T], said: Answer | Failure | None) -> Any:
    """The talk's next question, or the StopIteration that holds what it returns."""
    try:
        return talk.send(said)  # type: ignore[arg-type]
    except StopIteration as end:  # a coroutine must not let one pass
        return end


def _hold(error: RefusedError) -> float | None:
    """Seconds to ask nobody anything, where the refusal is for the pace; None where it is for something else."""
    asked = retry_after(error.headers)
    if error.status not in _TOO_FAST or (error.status == 503 and asked is None):
        return None
    return asked or 0.0
