"""`perceive.<expert>`: one expert looks at every selected image; its priors are one table. Rows never stop here."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from PIL import Image
from pydantic import Field, model_validator

from experts.base import Expert, ExpertSection, Prior
from experts.closed_set import ClosedSetSection
from experts.depth import DepthSection
from experts.florence import FlorenceSection
from experts.ocr import OcrSection
from experts.open_set import OpenSetSection
from experts.registry import EXPERTS
from experts.tags import TagsSection
from schemas.section import Section
from stages.base import POISON_DETAIL, MapStage, ShardInput, ShardOutput, align
from stages.devices import device_lost, out_of_memory
from stages.images import decode_rgb

# Images fail one by one; an expert that fails on as many as this and on all of a shard is itself at fault.
ALL_FAILED = 8


class PerceiveSection(Section):
    """Which experts look, and how. Null switches an expert off."""

    tags: TagsSection | None = Field(TagsSection(), description="tags, of a list of labels or of the model's own")
    open_set: OpenSetSection | None = Field(OpenSetSection(), description="boxes whose classes are the tags")
    closed_set: ClosedSetSection | None = Field(ClosedSetSection(), description="boxes of the detector's own classes")
    ocr: OcrSection | None = Field(OcrSection(), description="text in the image")
    depth: DepthSection | None = Field(None, description="relative depth; not one of the paper's experts")
    florence: FlorenceSection | None = Field(None, description="Florence-2; not one of the paper's experts")

    @model_validator(mode="after")
    def _needs_are_on(self) -> "PerceiveSection":
        for name, expert in EXPERTS.items():
            missing = [need for need in expert.needs if getattr(self, need) is None]
            if getattr(self, name) is not None and missing:
                raise ValueError(f"{name} takes the output of {missing[0]}, which is null: set both or neither")
        return self

    def experts(self) -> dict[str, ExpertSection]:
        """The experts that are on and their sections, each after those it needs."""
        every = {name: getattr(self, name) for name in EXPERTS}
        return {name: section for name, section in every.items() if section is not None}


@dataclass
class _Picture:
    """One row on its way to the model: its image and context, or why it has no image."""

    image: Image.Image | None
    context: dict[str, Prior]
    error: str | None = None


class PerceiveStage(MapStage):
    """One expert over a shard of `select`.

    An image that does not decode, or that the model refuses when it is alone in a batch, gives an empty prior and an
    `error`; the row goes on. Out of memory with one image left is the machine's failure, not the row's, and is raised.
    """

    version: ClassVar[int] = 1
    rows_from = "select"

    def __init__(self, expert: str, config: ExpertSection) -> None:
        super().__init__(config)
        self._expert: Expert = EXPERTS[expert](config)
        self._batch = config.batch_size
        self.name = f"perceive.{expert}"
        self.schema = self._expert.schema
        self.also_reads = tuple(f"perceive.{need}" for need in self._expert.needs)

    def models(self) -> dict[str, str]:
        return {"expert": f"{self._expert.name} v{self._expert.version}"} | self._expert.models()

    def check(self) -> None:
        self._expert.models()

    def open(self) -> None:
        self._expert.open(self.config.resources.device)

    def close(self) -> None:
        self._expert.close()

    def process(self, shard: ShardInput) -> ShardOutput:
        chosen = shard.tables["select"]
        uids = chosen.column("uid").to_pylist()
        rows: list[dict[str, Any]] = []
        seconds = 0.0
        for batch in self._pictures(shard, chosen, uids):
            started = time.perf_counter()
            priors = self._look(batch)
            seconds += time.perf_counter() - started
            rows += [{"uid": uid} | prior for uid, prior in zip(uids[len(rows) :], priors, strict=False)]
        failed = sum(row["error"] is not None for row in rows)
        if failed == len(rows) >= ALL_FAILED:
            raise RuntimeError(f"{self.name} failed on all {failed} images of the shard; the first: {rows[0]['error']}")
        return ShardOutput(
            pa.Table.from_pylist(rows, schema=self.schema),
            metrics={"images": float(len(rows)), "errors": float(failed), "expert_seconds": seconds},
        )

    def quarantine(self, rows: pa.Table) -> ShardOutput:
        """Poison rows get an error of that name; `caption` stops them, so that a row stops once, not once an expert."""
        uids = rows.column("uid").to_pylist()
        empty = [{"uid": uid} | self._nothing(POISON_DETAIL) for uid in uids]
        return ShardOutput(pa.Table.from_pylist(empty, schema=self.schema))

    def _pictures(self, shard: ShardInput, chosen: pa.Table, uids: list[str]) -> Iterator[list[_Picture]]:
        """Batches in input order; the next one is read and decoded while the model has this one."""
        needs = {need: align(shard.tables[f"perceive.{need}"], uids) for need in self._expert.needs}
        places = chosen.select(["image_shard", "image_offset", "image_bytes"])

        def picture(row: int) -> _Picture:
            context = {need: table.slice(row, 1).to_pylist()[0] for need, table in needs.items()}
            place = places.slice(row, 1).to_pylist()[0]
            data = shard.images.read(place["image_shard"], place["image_offset"], place["image_bytes"])
            try:
                return _Picture(decode_rgb(data), context)
            except Exception as error:  # Pillow's decoders raise many kinds
                return _Picture(None, context, f"did not decode: {_words(error)}")

        def batch(start: int, size: int) -> list[_Picture]:
            return [picture(row) for row in range(start, min(start + size, len(uids)))]

        with ThreadPoolExecutor(1) as pool:
            start, ahead = 0, pool.submit(batch, 0, self._batch)
            while pictures := ahead.result():
                start += len(pictures)
                ahead = pool.submit(batch, start, self._batch)
                yield pictures

    def _look(self, pictures: list[_Picture]) -> list[Prior]:
        """One prior with `error` per picture, in order."""
        whole = [picture for picture in pictures if picture.image is not None]
        priors = iter(self._halving(whole))
        return [next(priors) if picture.image is not None else self._nothing(picture.error) for picture in pictures]

    def _halving(self, pictures: list[_Picture]) -> list[Prior]:
        """Give the model all pictures; where it raises, its halves, down to the one that it cannot take."""
        if not pictures:
            return []
        try:
            images = [picture.image for picture in pictures if picture.image is not None]
            priors = self._expert.look(images, [picture.context for picture in pictures])
            return [prior | {"error": None} for prior in priors]
        except Exception as error:
            no_memory = out_of_memory(error)
            if len(pictures) == 1 and (no_memory or device_lost(error)):
                raise
            if len(pictures) == 1:
                return [self._nothing(f"the model failed: {_words(error)}")]
        # Outside the handler: the traceback holds the failed batch's tensors.
        half = len(pictures) // 2
        if no_memory:
            self._batch = min(self._batch, max(1, half))
        return self._halving(pictures[:half]) + self._halving(pictures[half:])

    def _nothing(self, error: str | None) -> Prior:
        columns = [field for field in self.schema if field.name not in ("uid", "error")]
        return {field.name: None if field.nullable else [] for field in columns} | {"error": error}


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
