"""`caption`: the fusion MLLM describes every image, given what the experts saw; the checks judge it."""

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from PIL import Image
from pydantic import Field, model_validator

from fusion.checkpoint import takes_boxes
from fusion.checks import Caption, ChecksSection, Finding, FindingKind, check
from fusion.client import Answer, BadInputError, ChatClient, Failure, Question, SamplingSection
from fusion.engine import EngineSection, VLLMServer
from fusion.priors import Priors
from fusion.prompt import Messages, Prompt, PromptSection
from schemas.errors import RequestError, SetupError
from schemas.ledger import Drop, Reason
from schemas.section import StageSection, runtime
from schemas.tables import CAPTION
from stages.base import POISON_DETAIL, MapStage, ShardInput, ShardOutput, align
from stages.image_url import image_url
from stages.priors import DecidedPriors

# A row that was under way at two deaths of the engine is asked alone; one that fells it twice more is poison.
DEATHS_IN_COMPANY = 2
DEATHS = 4


class CaptionSection(StageSection, SamplingSection):
    """The prompt, the engine, and what becomes of captions with faults."""

    engine: EngineSection = Field(description="which model answers, and how its server is run")
    prompt: PromptSection = Field(PromptSection(), description="how priors become a prompt")
    checks: ChecksSection = Field(ChecksSection(), description="where the checks draw their lines")
    reject_on: list[FindingKind] = Field(
        [FindingKind.EMPTY], description="findings that stop a row with reason caption_rejected"
    )
    repair_on: list[FindingKind] = Field(
        [], description="findings that are given back to the model, once; its second answer stands where it has fewer"
    )
    require_priors: bool = Field(
        True, description="stop a row that an expert failed on; false captions it without that prior"
    )
    image_max_side: int = Field(
        1536, ge=32, le=16_384, description="pixels; a longer image is sent to the engine scaled down to it"
    )
    concurrency: int = runtime(64, ge=1, le=4096, description="requests under way at once")
    request_timeout_s: float = runtime(
        600.0, gt=0, le=86_400, description="seconds for one attempt of a request, waiting inside the engine included"
    )
    retries: int = runtime(4, ge=0, le=20, description="further attempts after 429, 5xx or a lost connection")

    @model_validator(mode="after")
    def _deterministic_is_greedy(self) -> "CaptionSection":
        if self.engine.deterministic and self.temperature > 0:
            raise ValueError("engine.deterministic needs temperature 0")
        return self


@dataclass(frozen=True)
class _Stop:
    """Why a row has no caption."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class _Judged:
    answer: Answer
    findings: list[Finding]
    repaired: bool = False

    def kinds(self) -> set[FindingKind]:
        return {finding.kind for finding in self.findings}


class CaptionStage(MapStage):
    """Owns one engine and asks it for one caption per row.

    Args:
        priors: what the experts that are on say.
    """

    name = "caption"
    version = 1
    schema = CAPTION
    rows_from = "select"
    config: CaptionSection

    def __init__(self, config: CaptionSection, priors: DecidedPriors) -> None:
        super().__init__(config)
        self._priors = priors
        self.also_reads = priors.tables
        self._server: VLLMServer | None = None

    def models(self) -> dict[str, str]:
        return {"engine": self.config.engine.identity(), "prompt": Prompt(self.config.prompt).version()}

    def decisions(self) -> dict[str, dict[str, Any]]:
        return self._priors.decisions()

    def check(self) -> None:
        self.models()
        engine, gpus = self.config.engine, self.config.resources.gpus
        if engine.base_url is None and engine.tensor_parallel > max(gpus, 1):
            raise RequestError(
                f"caption.engine.tensor_parallel is {engine.tensor_parallel}, but caption.resources.gpus is {gpus:g}. "
                "Give a worker as many GPUs as its engine splits the model over."
            )
        for expert in ("tags", "depth", "florence"):
            if getattr(self.config.prompt, expert) and expert not in self._priors.experts:
                raise RequestError(
                    f"caption.prompt.{expert} shows a prior of perceive.{expert}, which is null. Turn the expert on, "
                    f"or set caption.prompt.{expert}=false."
                )

    def open(self) -> None:
        self._prompt = Prompt(self.config.prompt)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def process(self, shard: ShardInput) -> ShardOutput:
        """Captions in input order; a row stops where an expert failed, the engine has no answer, or the checks reject.

        Raises:
            SetupError: the engine is gone and does not come back.
        """
        started = time.monotonic()
        self._restarts = 0
        if self._server is not None:
            self._server.forgive()
        rows = _Rows(shard, self._priors)
        stops = self._unready(rows) if self.config.require_priors else {}
        judged: dict[int, _Judged] = {}

        ready = [i for i in range(len(rows.uids)) if i not in stops]
        for i, result in zip(ready, self._ask([self._question(rows, i) for i in ready]), strict=True):
            if isinstance(result, Answer):
                judged[i] = self._judge(rows, i, result)
            else:
                stops[i] = _stop(result)
        asked_again = self._repair(rows, judged, stops)
        for i, one in judged.items():
            faults = [f for f in one.findings if f.kind in self.config.reject_on]
            if faults:
                stops[i] = _Stop(Reason.CAPTION_REJECTED, "; ".join(f"{f.kind}: {f.detail}" for f in faults))

        kept = [i for i in ready if i in judged and i not in stops]
        answers = [one.answer for one in judged.values()]
        return ShardOutput(
            pa.Table.from_pylist([_row(rows.uids[i], judged[i]) for i in kept], schema=self.schema),
            [Drop(rows.uids[i], rows.urls[i], stops[i].reason, stops[i].detail) for i in sorted(stops)],
            metrics={
                "engine_seconds": time.monotonic() - started,
                "engine_restarts": float(self._restarts),
                "prompt_tokens": float(sum(a.prompt_tokens for a in answers)),
                "cached_tokens": float(sum(a.cached_tokens for a in answers)),
                "completion_tokens": float(sum(a.completion_tokens for a in answers)),
                "repairs_asked": float(asked_again),
                "repaired": float(sum(one.repaired for one in judged.values())),
            },
        )

    def _connect(self) -> None:
        """Start the engine, or look at the one that was given, and have it answer one question with an image."""
        engine = self.config.engine
        self._api_key = "none"
        if engine.base_url is None:
            self._server = VLLMServer(engine, self.config.resources.device)
            self._server.start()
        elif engine.api_key_env is not None:
            self._api_key = os.environ.get(engine.api_key_env, "")
            if not self._api_key:
                raise SetupError(
                    f"caption.engine.api_key_env names {engine.api_key_env}, which is not set where the caption worker "
                    "runs. Set it there (for a submitted run with `densefusion submit --env`)."
                )
        self._takes_boxes = takes_boxes(engine)
        while failure := self._probe(self.config.request_timeout_s, self.config.retries):
            if self._server is None or self._server.running():
                raise SetupError(self._no_answer(failure))
            self._server.ensure_alive(lambda: False)

    def _no_answer(self, failure: Failure) -> str:
        where = self.config.engine.base_url or "vLLM started by the caption worker"
        return (
            f"The caption engine ({where}, model {self.config.engine.model}) does not answer a short question about a "
            f"small image: {failure.detail}. Check that it is up, that it serves this model under this name, that the "
            "model takes images and has a chat template (caption.engine)."
        )

    def _probe(self, timeout_s: float, retries: int) -> Failure | None:
        """Ask for one token about a grey square; None where the engine answers."""
        png = io.BytesIO()
        Image.new("RGB", (224, 224), (128, 128, 128)).save(png, "PNG")
        question = self._asked(Messages("Answer in one word.", "What colour?"), image_url(png.getvalue(), 224))
        client = self._client(SamplingSection(max_tokens=1), timeout_s, retries)
        [result] = client.ask([lambda: question])
        return result if isinstance(result, Failure) else None

    def _client(self, sampling: SamplingSection, timeout_s: float, retries: int) -> ChatClient:
        """A client of the engine as it is now: a restarted server has another port."""
        engine, server = self.config.engine, self._server
        return ChatClient(
            server.base_url if server is not None else engine.base_url or "",
            server.api_key if server is not None else self._api_key,
            engine.request_model,
            sampling,
            concurrency=self.config.concurrency,
            timeout_s=timeout_s,
            retries=retries,
            alive=server.running if server is not None else lambda: True,
        )

    def _asked(self, messages: Messages, url: str) -> Question:
        """The request of one image; a model that looks at boxes gets those that the text shows."""
        boxes = [[box["x1"], box["y1"], box["x2"], box["y2"]] for box in messages.boxes]
        return Question(_openai_messages(messages, url), boxes if self._takes_boxes else None)

    def _ask(self, questions: list[Callable[[], Question]]) -> list[Answer | Failure | _Stop]:
        """An answer, failure or stop per question. Where the engine dies, it is restarted and only what is still
        unanswered is asked again."""
        results: list[Answer | Failure | _Stop | None] = [None] * len(questions)
        deaths = [0] * len(questions)
        pending = list(range(len(questions)))
        while pending:
            batch = [i for i in pending if deaths[i] < DEATHS_IN_COMPANY] or pending[:1]
            client = self._client(self.config, self.config.request_timeout_s, self.config.retries)
            got = dict(zip(batch, client.ask([questions[i] for i in batch]), strict=True))
            lost = {i: r for i, r in got.items() if isinstance(r, Failure) and not r.own}
            revived = bool(lost) and self._revive()
            for i, result in got.items():
                results[i] = result
                if revived and i in lost:
                    deaths[i] += lost[i].asked
                    poison = _Stop(Reason.POISON, "the engine died each time it was asked about this row")
                    results[i] = poison if deaths[i] >= DEATHS else None
            pending = [i for i in pending if results[i] is None]
        return [result for result in results if result is not None]

    def _revive(self) -> bool:
        """Whether the engine had to be restarted. Raises SetupError where it is gone for good."""
        if self._server is None:
            failure = self._probe(self.config.engine.health_timeout_s, self.config.retries)
            if failure is not None:
                raise SetupError(self._no_answer(failure))
            return False
        timeout_s = self.config.engine.health_timeout_s
        restarted = self._server.ensure_alive(lambda: self._probe(timeout_s, 0) is None)
        self._restarts += restarted
        return restarted

    def _unready(self, rows: "_Rows") -> dict[int, _Stop]:
        stops: dict[int, _Stop] = {}
        for expert, table in rows.priors.items():
            for i, error in enumerate(table.column("error").to_pylist()):
                if error is not None and i not in stops:
                    reason = Reason.POISON if error == POISON_DETAIL else Reason.EXPERT_FAILED
                    stops[i] = _Stop(reason, f"perceive.{expert}: {error}")
        return stops

    def _question(self, rows: "_Rows", i: int) -> Callable[[], Question]:
        def question() -> Question:
            try:
                url = image_url(rows.image(i), self.config.image_max_side)
            except ValueError as error:
                raise BadInputError(str(error)) from error
            return self._asked(self._prompt.render(rows.alt_texts[i], rows.priors_of(i)), url)

        return question

    def _judge(self, rows: "_Rows", i: int, answer: Answer) -> _Judged:
        caption = Caption(answer.text, answer.finish_reason)
        return _Judged(answer, check(caption, rows.priors_of(i), self.config.checks))

    def _repair(self, rows: "_Rows", judged: dict[int, _Judged], stops: dict[int, _Stop]) -> int:
        """Give the findings of faulty captions back to the model, once; how many were asked again."""
        faulty = [i for i, one in judged.items() if one.kinds() & set(self.config.repair_on)]

        def question(i: int) -> Callable[[], Question]:
            first, ask = judged[i], self._question(rows, i)
            again = self._prompt.repair([f.detail for f in first.findings if f.kind in self.config.repair_on])
            turns = [{"role": "assistant", "content": first.answer.text}, {"role": "user", "content": again}]

            def second() -> Question:
                asked = ask()
                return replace(asked, messages=[*asked.messages, *turns])

            return second

        for i, result in zip(faulty, self._ask([question(i) for i in faulty]), strict=True):
            if isinstance(result, Answer):
                judged[i] = _better(judged[i], self._judge(rows, i, result))
            elif not (isinstance(result, Failure) and result.own):
                del judged[i]
                stops[i] = _stop(result)
            # else: the longer conversation was refused (it does not fit), and the first caption stands as it is
        return len(faulty)


class _Rows:
    """The selected rows of one shard; measured priors and images are taken out one row at a time, a shard's worth is
    large."""

    def __init__(self, shard: ShardInput, priors: DecidedPriors) -> None:
        chosen = shard.tables["select"]
        self.uids: list[str] = chosen.column("uid").to_pylist()
        self.urls: list[str] = chosen.column("url").to_pylist()
        self.alt_texts: list[str | None] = chosen.column("alt_text").to_pylist()
        self.priors = {expert: align(shard.tables[f"perceive.{expert}"], self.uids) for expert in priors.experts}
        self._decide = priors
        self._decided: dict[int, Priors] = {}
        self._images = shard.images
        self._places = chosen.select(["image_shard", "image_offset", "image_bytes"])

    def image(self, i: int) -> bytes:
        place = self._places.slice(i, 1).to_pylist()[0]
        return self._images.read(place["image_shard"], place["image_offset"], place["image_bytes"])

    def priors_of(self, i: int) -> Priors:
        if i not in self._decided:
            measured = {expert: table.slice(i, 1).to_pylist()[0] for expert, table in self.priors.items()}
            self._decided[i] = Priors.of(self._decide.of(measured))
        return self._decided[i]


def _openai_messages(messages: Messages, url: str) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": messages.system},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": messages.user},
            ],
        },
    ]


def _better(first: _Judged, second: _Judged) -> _Judged:
    """The second answer where it has fewer findings, else the first; the tokens of both."""
    repaired = len(second.findings) < len(first.findings)
    chosen = second if repaired else first
    answer = Answer(
        chosen.answer.text,
        chosen.answer.finish_reason,
        first.answer.prompt_tokens + second.answer.prompt_tokens,
        first.answer.cached_tokens + second.answer.cached_tokens,
        first.answer.completion_tokens + second.answer.completion_tokens,
    )
    return _Judged(answer, chosen.findings, repaired)


def _stop(result: Failure | _Stop) -> _Stop:
    if isinstance(result, _Stop):
        return result
    undecodable = result.own and not result.asked
    return _Stop(Reason.DECODE if undecodable else Reason.ENGINE_ERROR, result.detail)


def _row(uid: str, judged: _Judged) -> dict[str, object]:
    answer = judged.answer
    return {
        "uid": uid,
        "caption": answer.text.strip(),
        "repaired": judged.repaired,
        "findings": [{"kind": str(f.kind), "detail": f.detail} for f in judged.findings],
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "cached_tokens": answer.cached_tokens,
        "completion_tokens": answer.completion_tokens,
    }
