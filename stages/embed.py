"""`embed`: images become unit vectors, computed while others decode, or looked up where they are there already."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from experts.open_clip_model import is_own_name, open_clip_identity
from schemas.errors import SetupError
from schemas.ledger import Drop, Reason
from schemas.section import ModelRef, StageSection, located, runtime
from schemas.tables import EMBED
from stages.base import MapStage, ShardInput, ShardOutput
from stages.decode_ahead import Batch, decoded_batches
from stages.embeddings.precomputed import Precomputed, PrecomputedSection, precomputed_files, precomputed_identity
from stages.image_tower import Encoding, ImageTower, check_tower

_NO_VECTOR = {
    False: "its key is not in embed.precomputed",
    True: "its vector in embed.precomputed is zero, NaN, infinite or of another width",
}
"""By whether the key is there."""


class EmbedSection(StageSection, ModelRef):
    """The image tower, and vectors that need none."""

    model: str = located(
        "EVA02-L-14",
        description="hub id (org/name) or local folder of an open_clip model, or one of open_clip's own names; the "
        "paper says EVA-CLIP and not which one, so the default is a choice of ours",
    )
    pretrained: str | None = located(
        "merged2b_s4b_b131k", description="open_clip's weights tag; only used with open_clip's own model names"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="arithmetic of the tower; vectors are stored as fp16"
    )
    batch_size: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = runtime(
        "auto",
        description="images in one forward pass, 1 to 4096; halved when memory runs out; another size may change a "
        "vector's last bits. auto decides by the model's FLOPs and the kind of device, never by a clock, so a resumed "
        "run computes the same bytes",
    )
    decode_threads: int | None = runtime(
        None,
        ge=1,
        le=256,
        description="threads that read, decode and resize ahead of the model; null takes one for each of "
        "resources.cpus, at least 2; more than there are cores help where images are read over a network",
    )
    precomputed: PrecomputedSection | None = Field(
        None, description="embeddings that were made before and are only looked up; null computes all"
    )

    @model_validator(mode="after")
    def _revision_is_the_hubs(self) -> "EmbedSection":
        if self.revision is not None and is_own_name(self.model):
            raise ValueError("revision pins a hub model (org/name); of open_clip's own names `pretrained` says all")
        return self

    @property
    def computes(self) -> bool:
        """Whether any image may go through the model."""
        return self.precomputed is None or self.precomputed.missing == "compute"

    @property
    def threads(self) -> int:
        """How many decode."""
        return self.decode_threads or max(2, int(self.resources.cpus))


class EmbedStage(MapStage):
    """One unit vector an image; what does not decode, or has no vector where none is computed, stops here."""

    name = "embed"
    version = 3
    schema = EMBED
    rows_from = "download"
    config: EmbedSection

    def models(self) -> dict[str, str]:
        config = self.config
        model = {"model": open_clip_identity(config, config.pretrained)} if config.computes else {}
        files = {"precomputed": precomputed_identity(config.precomputed)} if config.precomputed else {}
        return model | files

    def check(self) -> None:
        if self.config.computes:
            check_tower(self.config, self.config.pretrained)
        if self.config.precomputed:
            precomputed_files(self.config.precomputed)

    def open(self) -> None:
        config = self.config
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="decode")
        self._precomputed: Precomputed | None = None
        self._tower: ImageTower | None = None
        if config.precomputed:
            try:
                self._precomputed = Precomputed(config.precomputed, self.identity["precomputed"])
            except Exception as e:
                raise SetupError(
                    f"embed.precomputed cannot be read by a worker: {e}. All workers must see the same files."
                ) from e
        if config.computes:
            self._tower = self._loaded()
        widths = [source.width for source in (self._tower, self._precomputed) if source]
        self._width = widths[0]
        if widths[-1] != self._width:
            raise SetupError(
                f"The vectors of embed.precomputed have {widths[-1]} numbers, those of {config.model} "
                f"{self._width}. Set embed.model to the model that made them, or embed.precomputed.missing to drop, "
                "which computes none."
            )

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._precomputed:
            self._precomputed.close()

    def process(self, shard: ShardInput) -> ShardOutput:
        """Metrics: `precomputed` and `computed` vectors; of the latter, `flops` (FLOPs of the images encoded) and
        `model_seconds` (that the device worked on them): their quotient over the device's peak rate is the MFU."""
        table = shard.tables["download"]
        uids, urls = (table.column(name).to_pylist() for name in ("uid", "url"))
        vectors = np.zeros((len(uids), self._width), np.float16)
        there = listed = np.zeros(len(uids), bool)
        if self._precomputed:
            found, there, listed = self._precomputed.vectors(uids, urls)
            vectors[there] = found[there]
        metrics = {"precomputed": float(there.sum())}
        left = np.flatnonzero(~there)
        failed: dict[int, tuple[Reason, str]] = {}
        if self._tower:
            seconds = self._compute(self._tower, shard, table, left, vectors, failed)
            there[[row for row in left.tolist() if row not in failed]] = True
            computed = float(len(left) - len(failed))
            metrics |= {"computed": computed, "flops": computed * self._tower.flops, "model_seconds": seconds}
        else:
            failed = {row: (Reason.NO_EMBEDDING, _NO_VECTOR[bool(listed[row])]) for row in left.tolist()}
        drops = [Drop(uids[row], urls[row], *why) for row, why in failed.items()]
        return ShardOutput(_table(table.column("uid").filter(pa.array(there)), vectors[there]), drops, metrics=metrics)

    def _loaded(self) -> ImageTower:
        config = self.config
        device = config.resources.device
        try:
            return ImageTower(config, config.pretrained, config.precision, device, config.batch_size)
        except Exception as e:
            raise SetupError(
                f"The model {config.model} cannot be loaded on {device}: {e}. Check embed.model, "
                "embed.pretrained and embed.revision, and that the weights can be had from here."
            ) from e

    def _compute(
        self,
        tower: ImageTower,
        shard: ShardInput,
        table: pa.Table,
        rows: np.ndarray,
        vectors: np.ndarray,
        failed: dict[int, tuple[Reason, str]],
    ) -> float:
        """Put the rows' vectors in their places, and say which did not decode; seconds of the device.

        The device has a batch queued behind the one it computes.
        """
        seconds = 0.0
        queued: deque[tuple[Batch, Encoding]] = deque()

        def take() -> float:
            batch, encoding = queued.popleft()
            result, took = encoding.result()
            vectors[batch.rows] = result[: len(batch.rows)]
            failed.update({int(batch.rows[place]): (Reason.DECODE, why) for place, why in sorted(batch.failed.items())})
            return took

        for batch in decoded_batches(tower, self.config.threads, self._pool, shard, table, rows):
            queued.append((batch, tower.encode(batch.pictures)))
            if len(queued) > 1:
                seconds += take()
        while queued:
            seconds += take()
        return seconds


def _table(uids: pa.ChunkedArray, vectors: np.ndarray) -> pa.Table:
    width = vectors.shape[1]
    sized = EMBED.field("embedding").with_type(pa.list_(pa.float16(), width))
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float16()), width)
    return pa.table([uids, embeddings], schema=pa.schema([EMBED.field("uid"), sized]))
