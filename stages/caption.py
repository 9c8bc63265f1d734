"""`caption`: the fusion MLLM describes every image, given what the experts saw; the checks judge it."""

import io
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image
from pydantic import Field, model_validator

from fusion.budget import BudgetSection, tokenizer_identity
from fusion.checks import Caption, ChecksSection, Finding, FindingKind, check, faultiness
from fusion.client import Answer, ChatClient, Failure, Question, SamplingSection
from fusion.engine import EngineSection, VLLMServer
from fusion.notes import Cut
from fusion.priors import Priors
from fusion.prompt import Messages, Prompt, PromptSection
from schemas.errors import RequestError, SetupError
from schemas.ledger import Drop, Reason
from schemas.section import StageSection, runtime
from schemas.tables import CAPTION
from stages.base import POISON_DETAIL, MapStage, ShardInput, ShardOutput, align
from stages.caption_request import CaptionRequest, check_budget
from stages.priors import DecidedPriors

# A row that was under way at two deaths of the engine is asked alone; one that fells it twice more is poison.
DEATHS_IN_COMPANY = 2
DEATHS = 4


class CaptionSection(StageSection, SamplingSection):
    """The prompt, the engine, and what becomes of captions with faults."""

    engine: EngineSection = Field(description="which model answers, and how its server is run")
    prompt: PromptSection = Field(PromptSection(), description="how priors become a prompt")
    budget: BudgetSection = Field(BudgetSection(), description="what a prompt may take of the engine's window")
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
        tokenizer = tokenizer_identity(self.config.budget, self.config.engine)
        return {
            "engine": self.config.engine.identity(),
            "prompt": Prompt(self.config.prompt).version(),
            **({"tokenizer": tokenizer} if tokenizer is not None else {}),
        }

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
        check_budget(self.config)

    def open(self) -> None:
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
        rows = CaptionRows(shard, self._priors)
        stops = self.unready(rows)
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
                **_cut_metrics(rows.cuts.values()),
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
        try:
            self._request = CaptionRequest(self.config)
        except RequestError as error:  # what is asked for is not there where the worker runs
            raise SetupError(str(error)) from None
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
        messages = Messages("Answer in one word.", "What colour?")
        question = self._request.question(messages, self._request.image_url(png.getvalue()))
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

    def unready(self, rows: "CaptionRows") -> dict[int, _Stop]:
        """The rows that are not asked about, because an expert failed on them and its prior is required."""
        stops: dict[int, _Stop] = {}
        if not self.config.require_priors:
            return stops
        for expert, table in rows.priors.items():
            for i, error in enumerate(table.column("error").to_pylist()):
                if error is not None and i not in stops:
                    reason = Reason.POISON if error == POISON_DETAIL else Reason.EXPERT_FAILED
                    stops[i] = _Stop(reason, f"perceive.{expert}: {error}")
        return stops

    def _question(self, rows: "CaptionRows", i: int) -> Callable[[], Question]:
        def question() -> Question:
            url = self._request.image_url(rows.image(i))
            messages = self._request.prompt.render(rows.alt_texts[i], rows.priors_of(i))
            rows.cuts[i] = messages.cut
            return self._request.question(messages, url)

        return question

    def _judge(self, rows: "CaptionRows", i: int, answer: Answer) -> _Judged:
        caption = Caption(answer.text, answer.finish_reason)
        return _Judged(answer, check(caption, rows.priors_of(i), self.config.checks))

    def _repair(self, rows: "CaptionRows", judged: dict[int, _Judged], stops: dict[int, _Stop]) -> int:
        """Give the findings of faulty captions back to the model, once; how many were asked again."""
        faulty = [i for i, one in judged.items() if one.kinds() & set(self.config.repair_on)]

        def question(i: int) -> Callable[[], Question]:
            first, request = judged[i].answer.text, self._request
            again = request.prompt.repair([f.detail for f in judged[i].findings if f.kind in self.config.repair_on])
            turns = [{"role": "assistant", "content": first}, {"role": "user", "content": again}]

            def second() -> Question:
                url = request.image_url(rows.image(i))
                messages = request.prompt.render(rows.alt_texts[i], rows.priors_of(i), then=(first, again))
                return request.question(messages, url, turns)

            return second

        for i, result in zip(faulty, self._ask([question(i) for i in faulty]), strict=True):
            if isinstance(result, Answer):
                judged[i] = _better(judged[i], self._judge(rows, i, result))
            elif not (isinstance(result, Failure) and result.own):
                del judged[i]
                stops[i] = _stop(result)
            # else: the longer conversation was refused (it does not fit), and the first caption stands as it is
        return len(faulty)


class CaptionRows:
    """The selected rows of one shard; measured priors and images are taken out one row at a time, a shard's worth is
    large.

    Attributes:
        cuts: what the budget took of the prompts that were made so far, by row.
    """

    def __init__(self, shard: ShardInput, priors: DecidedPriors) -> None:
        chosen = shard.tables["select"]
        self.uids: list[str] = chosen.column("uid").to_pylist()
        self.urls: list[str] = chosen.column("url").to_pylist()
        self.alt_texts: list[str | None] = chosen.column("alt_text").to_pylist()
        self.priors = {expert: align(shard.tables[f"perceive.{expert}"], self.uids) for expert in priors.experts}
        self.cuts: dict[int, Cut] = {}
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


def _cut_metrics(cuts: Iterable[Cut]) -> dict[str, float]:
    """What the budget took away, over the rows of a shard."""
    some = [cut for cut in cuts if cut]
    if not some:
        return {"prompts_cut": 0.0}
    return {
        "prompts_cut": float(len(some)),
        "prompts_too_long": float(sum(cut.too_long for cut in some)),
        "cut_lines": float(sum(cut.lines for cut in some)),
        "cut_boxes": float(sum(cut.boxes for cut in some)),
        "cut_tags": float(sum(cut.tags for cut in some)),
        "cut_chars": float(sum(cut.description_chars + cut.alt_chars for cut in some)),
    }


def _better(first: _Judged, second: _Judged) -> _Judged:
    """The second answer where it has fewer findings, else the first; the tokens of both."""
    repaired = faultiness(second.findings) < faultiness(first.findings)
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
