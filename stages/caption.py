"""`caption`: the fusion MLLM describes every image, given what the experts saw; the checks judge it."""

import io
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image

from fusion.budget import tokenizer_identity
from fusion.engine import Answer, Engine, Failure, Question
from fusion.notes import Cut
from fusion.prompt import Messages, Prompt
from fusion.request import CaptionRequest, check_instructions
from schemas.errors import RequestError, SetupError
from schemas.ledger import Drop, Reason
from schemas.tables import CAPTION
from stages.answer_book import KIND, AnswerBook
from stages.base import POISON_DETAIL, MapStage, ShardInput, ShardOutput
from stages.caption_findings import findings_metrics
from stages.caption_rows import CaptionRows
from stages.caption_section import CaptionSection
from stages.caption_talk import CaptionTalks, Judged
from stages.priors import DecidedPriors
from stages.spend import SpendLedger

# A row that was under way at two deaths of the engine is asked alone; one that fells it twice more is poison.
DEATHS_IN_COMPANY = 2
DEATHS = 4


@dataclass(frozen=True)
class _Stop:
    """Why a row has no caption."""

    reason: Reason
    detail: str


def request_of(config: CaptionSection, engine: str = "") -> CaptionRequest:
    """Makes the stage's requests.

    Args:
        engine: identity of what answers.

    Raises:
        RequestError: as CaptionRequest.
    """
    return CaptionRequest(config.engine, config.prompt, config.budget, config, config.image_max_side, engine)


class CaptionStage(MapStage):
    """Owns one engine and asks it for one caption per row.

    The engine is started by the first question that no earlier attempt has the answer of: a change of policy alone
    starts none.

    Args:
        priors: what the experts that are on say.
    """

    name = "caption"
    version = 2
    schema = CAPTION
    rows_from = "select"
    config: CaptionSection

    def __init__(self, config: CaptionSection, priors: DecidedPriors) -> None:
        super().__init__(config)
        self._priors = priors
        self.also_reads = priors.tables
        self._engine: Engine | None = None
        self._spend: SpendLedger | None = None
        self._prefix_tokens = 0

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
        config = self.config
        check_instructions(config.engine, config.prompt, config.budget, config)

    def open(self) -> None:
        try:
            self._request = request_of(self.config, self.identity["engine"])
        except RequestError as error:  # what is asked for is not there where the worker runs
            raise SetupError(str(error)) from None

    def connect(self) -> Engine:
        """The engine, started or reached, having answered a question with an image.

        Raises:
            SetupError: it does not start, does not answer, or does not keep to the schema of structured answers.
        """
        if self._engine is None:
            config = self.config
            engine = Engine(
                config.engine,
                config.resources.device,
                concurrency=config.concurrency,
                timeout_s=config.request_timeout_s,
                retries=config.retries,
                of="caption.engine",
                workers=config.resources.workers.max,
                sampling=config,
            )
            try:
                engine.start()
                engine.wait_until_it_answers(self.probe())
                self._prove_structured(engine)
                self._prefix_tokens = engine.prefix_tokens(self._request.prompt.system)
            except BaseException:
                engine.stop()
                raise
            self._engine = engine
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.stop()
            self._engine = None

    def process(self, shard: ShardInput) -> ShardOutput:
        """Captions in input order; a row stops where an expert failed, the engine has no answer, or the checks reject.

        Raises:
            SetupError: the engine is gone and does not come back, or the budget is spent.
        """
        self._restarts, self._asked_s = 0, 0.0
        if self._engine is not None:
            self._engine.forgive()
        rows = CaptionRows(shard, self._priors)
        stops = self.unready(rows)
        judged: dict[int, Judged] = {}
        ready = [i for i in range(len(rows.uids)) if i not in stops]
        with AnswerBook(shard.memory) as book:
            talks = CaptionTalks(self.config, self._request, rows, book, self._purse(shard))
            book.look_up([rows.uids[i] for i in ready])
            for i, outcome in self._outcomes(talks, ready, book).items():
                if isinstance(outcome, Judged):
                    judged[i] = outcome
                else:
                    stops[i] = outcome
            answers = book.save(shard.scratch / f"{KIND}.parquet")
        for i, one in judged.items():
            faults = [f for f in one.findings if f.kind in self.config.reject_on]
            if faults:
                stops[i] = _Stop(Reason.CAPTION_REJECTED, "; ".join(f"{f.kind}: {f.detail}" for f in faults))

        kept = [i for i in ready if i in judged and i not in stops]
        return ShardOutput(
            pa.Table.from_pylist([self._row(rows.uids[i], judged[i]) for i in kept], schema=self.schema),
            [Drop(rows.uids[i], rows.urls[i], stops[i].reason, stops[i].detail) for i in sorted(stops)],
            files={KIND: answers},
            metrics={
                "engine_seconds": self._asked_s,
                "engine_restarts": float(self._restarts),
                "answers_asked": float(len(book.asked)),
                "answers_taken_over": float(book.taken_over),
                **_token_metrics(list(judged.values())),
                **_prefix_metrics(book.asked, self._prefix_tokens),
                "repairs_asked": float(sum(one.repair is not None for one in judged.values())),
                "repaired": float(sum(one.repaired for one in judged.values())),
                **findings_metrics(list(judged.values()), [judged[i] for i in kept]),
                **_cut_metrics(rows.cuts.values()),
            },
        )

    def _outcomes(self, talks: CaptionTalks, ready: list[int], book: AnswerBook) -> dict[int, Judged | _Stop]:
        """What came of each row, in their order. Where the engine dies, it is restarted and only what is still
        unanswered is asked again."""
        outcomes: dict[int, Judged | _Stop] = {}
        if book.knows_any:
            outcomes = {i: done for i in ready if (done := talks.from_book(i)) is not None}
        deaths: Counter[int] = Counter()
        pending = [i for i in ready if i not in outcomes]
        further = self.config.structured.request() if self.config.structured is not None else None
        while pending:
            engine = self.connect()
            batch = [i for i in pending if deaths[i] < DEATHS_IN_COMPANY] or pending[:1]
            client = engine.client(self.config, further)
            began = time.monotonic()
            got = dict(zip(batch, client.converse([talks.begin(i) for i in batch]), strict=True))
            self._asked_s += time.monotonic() - began
            lost = {i: r for i, r in got.items() if isinstance(r, Failure) and not r.own}
            if later := next((failure for failure in lost.values() if failure.later), None):
                raise self._not_now(later)
            revived = bool(lost) and engine.revive(self.probe())
            self._restarts += revived
            for i, result in got.items():
                if revived and i in lost:
                    deaths[i] += lost[i].asked
                    if deaths[i] >= DEATHS:
                        outcomes[i] = _Stop(Reason.POISON, "the engine died each time it was asked about this row")
                else:
                    outcomes[i] = _stop(result) if isinstance(result, Failure) else result
            pending = [i for i in pending if i not in outcomes]
        return {i: outcomes[i] for i in ready}

    def probe(self, text: str = "What colour is it?") -> Question:
        """A short question about a grey square, behind the system text that all prompts begin with: an engine that has
        answered it has that in its cache."""
        png = io.BytesIO()
        Image.new("RGB", (224, 224), (128, 128, 128)).save(png, "PNG")
        messages = Messages(self._request.prompt.system, text)
        return self._request.question(messages, self._request.image_url(png.getvalue()))

    def _prove_structured(self, engine: Engine) -> None:
        """Raises SetupError where an answer is not of the schema: the engine takes no notice of it."""
        structured = self.config.structured
        if structured is None:
            return
        probe = self.probe("Describe the picture.")
        [said] = engine.client(self.config, structured.request()).ask([lambda: probe])
        fault = said.detail if isinstance(said, Failure) else ""
        # An answer that reached the token limit cannot be whole; that it began as one is all it shows.
        if isinstance(said, Answer) and not (said.finish_reason == "length" and said.text.lstrip().startswith("{")):
            try:
                structured.caption_of(said.text)
            except ValueError as error:
                fault = f"its answer is {error}"
        if fault:
            raise SetupError(
                f"The engine (model {self.config.engine.model}) does not hold its answers to "
                f"caption.structured.json_schema: {fault}. It must understand `response_format` of the type "
                "json_schema, as vLLM does; or set caption.structured=null."
            )

    def _purse(self, shard: ShardInput) -> SpendLedger | None:
        if self._spend is None and self.config.spend is not None and shard.memory is not None:
            folder = shard.memory.lasting()
            self._spend = SpendLedger(self.config.spend, folder, self.config.engine.request_model)
        return self._spend

    def _not_now(self, failure: Failure) -> SetupError:
        """What to do where nothing more may be asked at present."""
        config = self.config
        kept = "What was answered is kept and will not be asked again: "
        if failure.asked or config.spend is None or self._spend is None:
            return SetupError(
                f"The engine (model {config.engine.model}) refuses to be asked so fast, for longer than "
                f"caption.engine.patience_s ({config.engine.patience_s:g}): {failure.detail}. {kept}run again later, "
                "set caption.engine.requests_per_minute and tokens_per_minute to what the host allows, or have more "
                "patience."
            )
        return SetupError(
            f"The captions of this run have cost {self._spend.spent():.4g} {config.spend.currency}, and the next one "
            f"might pass caption.spend.budget ({config.spend.budget:g}). {kept}raise the budget and run again to go on."
        )

    def unready(self, rows: CaptionRows) -> dict[int, _Stop]:
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

    def _row(self, uid: str, judged: Judged) -> dict[str, object]:
        answer = judged.answer
        return {
            "uid": uid,
            "caption": judged.caption,
            "structured": answer.text if self.config.structured is not None else None,
            "repaired": judged.repaired,
            "findings": [{"kind": str(f.kind), "detail": f.detail} for f in judged.findings],
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "cached_tokens": answer.cached_tokens,
            "completion_tokens": answer.completion_tokens,
        }


def _token_metrics(judged: list[Judged]) -> dict[str, float]:
    """What the captions of a shard took, whichever attempt asked for them."""
    return {
        name: float(sum(getattr(one.answer, name) for one in judged))
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
    }


def _prefix_metrics(asked: list[Answer], prefix_tokens: int) -> dict[str, float]:
    """Tokens of the shared beginning in the prompts that were asked, in whole blocks, and those that a cache served."""
    if not prefix_tokens:
        return {}
    served = sum(min(answer.cached_tokens, prefix_tokens) for answer in asked)
    return {"prefix_tokens": float(prefix_tokens * len(asked)), "prefix_cached_tokens": float(served)}


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


def _stop(failure: Failure) -> _Stop:
    undecodable = failure.own and not failure.asked
    return _Stop(Reason.DECODE if undecodable else Reason.ENGINE_ERROR, failure.detail)
