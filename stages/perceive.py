"""`perceive.<expert>`: one expert looks at every image; what it measures is one table. Rows never stop here."""

import time
from collections import deque
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import Field, create_model, model_validator

from experts.base import ROW, Context, Expert, ExpertSection, Prior
from experts.registry import EXPERTS
from schemas.pictures import decode_rgb
from schemas.section import Section
from stages.base import POISON_DETAIL, MapStage, ShardInput, ShardOutput, align
from stages.devices import device_lost, out_of_memory

# Images fail one by one; an expert that fails on as many as this and on all of a shard is itself at fault.
ALL_FAILED = 8
_BATCHES_AHEAD = 2
_BATCHES_WAITING = 4
"""Batches' worth of prepared pictures that may wait for others of their bucket, and of answers that threads finish."""
_ROW_COLUMNS = ("uid", "url", "sha256", "width", "height", "orientation")
_PLACE_COLUMNS = ("image_offset", "image_bytes")


class ExpertsSection(Section):
    """Which experts look, and how. Null switches an expert off."""

    @model_validator(mode="after")
    def _needs_are_on(self) -> "ExpertsSection":
        for name, section in self.experts().items():
            for need in EXPERTS[name](section).needs:
                if getattr(self, need, None) is None:
                    raise ValueError(f"{name} takes the output of {need}, which is null: set both or neither")
                if EXPERTS[need].rows_from != EXPERTS[name].rows_from:
                    raise ValueError(
                        f"{name} looks at the rows of {EXPERTS[name].rows_from} and takes the output of {need}, which "
                        f"looks at those of {EXPERTS[need].rows_from}: the two must look at the same rows"
                    )
        return self

    def experts(self, rows_from: str | None = None) -> dict[str, ExpertSection]:
        """The experts that are on (of those that look at the rows of one stage) and their sections, each after those it
        needs."""
        every = {name: getattr(self, name) for name in EXPERTS}
        on = {name: section for name, section in every.items() if section is not None}
        ordered: dict[str, ExpertSection] = {}

        def add(name: str, above: tuple[str, ...]) -> None:
            if name in on and name not in ordered and name not in above:
                for need in EXPERTS[name](on[name]).needs:
                    add(need, (*above, name))
                ordered[name] = on[name]

        for name in on:
            add(name, ())
        return {name: one for name, one in ordered.items() if rows_from in (None, EXPERTS[name].rows_from)}


def _field(expert: type[Expert]) -> tuple[Any, Any]:
    return expert.section | None, Field(expert.section() if expert.on else None, description=expert.about)


if TYPE_CHECKING:
    PerceiveSection = ExpertsSection
else:
    PerceiveSection = create_model(
        "PerceiveSection", __base__=ExpertsSection, **{name: _field(expert) for name, expert in EXPERTS.items()}
    )


@dataclass
class _Picture:
    """One row on its way to the model: what the model takes of its image, or why there is nothing.

    Attributes:
        row: its number in the shard.
        seconds: that reading, decoding and preparing took.
    """

    row: int
    context: Context
    prepared: Any = None
    bucket: Hashable = None
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class _Answer:
    """What the model gave for one picture, or why it gave nothing."""

    looked: Any = None
    error: str | None = None


class PerceiveStage(MapStage):
    """One expert over a shard.

    An image that does not decode, or that the model refuses when it is alone in a batch, gives an empty prior and an
    `error`; the row goes on. Out of memory with one image left is the machine's failure, not the row's, and is raised.

    Images are read, decoded and prepared in threads while the model works on those before them. Batches are made of
    pictures of one bucket, in the order of the rows and by nothing else, so that the same shard makes the same batches.
    """

    version: ClassVar[int] = 2

    def __init__(self, expert: str, config: ExpertSection) -> None:
        super().__init__(config)
        self._expert: Expert = EXPERTS[expert](config)
        self._batch = config.batch_size
        self.name = f"perceive.{expert}"
        self.schema = self._expert.schema
        self.rows_from: str = self._expert.rows_from
        self._images_from = "select" if self.rows_from == "select" else "download"
        needs = tuple(f"perceive.{need}" for need in self._expert.needs)
        self.also_reads = needs if self._images_from == self.rows_from else (self._images_from, *needs)

    def models(self) -> dict[str, str]:
        return {"expert": f"{self._expert.name} v{self._expert.version}"} | self._expert.models()

    def check(self) -> None:
        self._expert.models()

    def open(self) -> None:
        self._expert.open(self.config.resources.device)
        self._least = self._expert.least() if self._section.decode == "scaled" else None
        self._pool = ThreadPoolExecutor(self._section.decoders, thread_name_prefix="decode")

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._expert.close()

    @property
    def _section(self) -> ExpertSection:
        assert isinstance(self.config, ExpertSection)
        return self.config

    def process(self, shard: ShardInput) -> ShardOutput:
        """Metrics: `images`; `errors` among them; seconds that the expert worked (`expert_seconds`), that threads read,
        decoded and prepared (`prepare_seconds`), and that the expert waited for them (`wait_seconds`)."""
        rows = _Rows(shard, self.rows_from, self._images_from, self._expert.needs)
        priors: dict[int, Prior] = {}
        finishing: deque[tuple[int, Future[Prior]]] = deque()
        metrics = dict.fromkeys(("expert_seconds", "prepare_seconds", "wait_seconds"), 0.0)
        for batch in self._batches(rows, priors, metrics):
            started = time.perf_counter()
            answers = self._halving(batch)
            metrics["expert_seconds"] += time.perf_counter() - started
            finishing += [
                (one.row, self._pool.submit(self._finished, a)) for one, a in zip(batch, answers, strict=True)
            ]
            while len(finishing) > _BATCHES_WAITING * self._batch:
                row, done = finishing.popleft()
                priors[row] = done.result()
        priors |= {row: done.result() for row, done in finishing}
        failed = [priors[row]["error"] for row in range(len(rows)) if priors[row]["error"] is not None]
        if len(failed) == len(rows) >= ALL_FAILED:
            raise RuntimeError(f"{self.name} failed on all {len(rows)} images of the shard; the first: {failed[0]}")
        table = [{"uid": uid} | priors[row] for row, uid in enumerate(rows.uids)]
        return ShardOutput(
            pa.Table.from_pylist(table, schema=self.schema),
            metrics={"images": float(len(rows)), "errors": float(len(failed)), **metrics},
        )

    def quarantine(self, rows: pa.Table) -> ShardOutput:
        """Poison rows get an error of that name; `caption` stops them, so that a row stops once, not once an expert."""
        uids = rows.column("uid").to_pylist()
        empty = [{"uid": uid} | self._nothing(POISON_DETAIL) for uid in uids]
        return ShardOutput(pa.Table.from_pylist(empty, schema=self.schema))

    def _batches(self, rows: "_Rows", priors: dict[int, Prior], metrics: dict[str, float]) -> Iterator[list[_Picture]]:
        """Batches of one bucket each; pictures that did not decode get their prior here."""
        waiting: dict[Hashable, list[_Picture]] = {}
        for picture in self._pictures(rows, metrics):
            metrics["prepare_seconds"] += picture.seconds
            if picture.error is not None:
                priors[picture.row] = self._nothing(picture.error)
                continue
            members = waiting.setdefault(picture.bucket, [])
            members.append(picture)
            if len(members) >= self._batch:
                yield waiting.pop(picture.bucket)
            elif sum(map(len, waiting.values())) > _BATCHES_WAITING * self._batch:
                yield waiting.pop(max(waiting, key=lambda bucket: len(waiting[bucket])))
        yield from waiting.values()

    def _pictures(self, rows: "_Rows", metrics: dict[str, float]) -> Iterator[_Picture]:
        """In the order of the rows, a few batches ahead of the taker."""
        ahead: deque[Future[_Picture]] = deque()

        def take() -> _Picture:
            started = time.perf_counter()
            picture = ahead.popleft().result()
            metrics["wait_seconds"] += time.perf_counter() - started
            return picture

        for row in range(len(rows)):
            ahead.append(self._pool.submit(self._picture, rows, row))
            if len(ahead) > _BATCHES_AHEAD * self._batch:
                yield take()
        while ahead:
            yield take()

    def _picture(self, rows: "_Rows", row: int) -> _Picture:
        started = time.perf_counter()
        picture = _Picture(row, rows.context(row))
        data = rows.image(row)
        try:
            image = decode_rgb(data, self._least)
        except ValueError as error:
            picture.error = f"did not decode: {str(error)[:300]}"
        else:
            self._prepare(picture, image)
        picture.seconds = time.perf_counter() - started
        return picture

    def _prepare(self, picture: _Picture, image: Any) -> None:
        try:
            picture.prepared = self._expert.prepare(image)
            picture.bucket = self._expert.bucket(picture.prepared)
        except MemoryError:
            raise
        except Exception as error:  # whatever a processor makes of a strange shape
            picture.error = f"could not be prepared for the model: {_words(error)}"

    def _halving(self, pictures: list[_Picture]) -> list[_Answer]:
        """Give the model all pictures; where it raises, its halves, down to the one that it cannot take."""
        try:
            looked = self._expert.look([one.prepared for one in pictures], [one.context for one in pictures])
            return [_Answer(one) for one in looked]
        except Exception as error:
            no_memory = out_of_memory(error)
            if len(pictures) == 1 and (no_memory or device_lost(error)):
                raise
            if len(pictures) == 1:
                return [_Answer(error=f"the model failed: {_words(error)}")]
        # Outside the handler: the traceback holds the failed batch's tensors.
        half = len(pictures) // 2
        if no_memory:
            self._batch = min(self._batch, max(1, half))
        return self._halving(pictures[:half]) + self._halving(pictures[half:])

    def _finished(self, answer: _Answer) -> Prior:
        if answer.error is not None:
            return self._nothing(answer.error)
        try:
            return self._expert.finish(answer.looked) | {"error": None}
        except MemoryError:
            raise
        except Exception as error:  # values that are not finite, an answer that cannot be read
            return self._nothing(f"the model failed: {_words(error)}")

    def _nothing(self, error: str | None) -> Prior:
        columns = [field for field in self.schema if field.name not in ("uid", "error")]
        return {field.name: None if field.nullable else [] for field in columns} | {"error": error}


class _Rows:
    """The rows of a shard, and what is known of each; thread-safe."""

    def __init__(self, shard: ShardInput, rows_from: str, images_from: str, needs: tuple[str, ...]) -> None:
        chosen = shard.tables[rows_from]
        self.uids: list[str] = chosen.column("uid").to_pylist()
        known = chosen if images_from == rows_from else align(shard.tables[images_from], self.uids)
        self._row = known.select([name for name in _ROW_COLUMNS if name in known.column_names])
        self._places = known.select(_PLACE_COLUMNS)
        # What download committed lies under the shard's own name; what select chose came from many.
        named = "image_shard" in known.column_names
        self._shards = known.column("image_shard") if named else pa.repeat(shard.shard, len(self.uids))
        self._needs = {need: align(shard.tables[f"perceive.{need}"], self.uids) for need in needs}
        self._images = shard.images

    def __len__(self) -> int:
        return len(self.uids)

    def image(self, row: int) -> bytes:
        place = self._places.slice(row, 1).to_pylist()[0]
        return self._images.read(self._shards[row].as_py(), place["image_offset"], place["image_bytes"])

    def context(self, row: int) -> Context:
        tables = {ROW: self._row, **self._needs}
        return {name: table.slice(row, 1).to_pylist()[0] for name, table in tables.items()}


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
