"""`embed`: images become unit vectors; decoding runs ahead of the model in threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field, model_validator

from experts.open_clip_model import is_own_name
from schemas.errors import SetupError
from schemas.ledger import Drop, Reason
from schemas.section import ModelRef, StageSection, located, runtime
from schemas.tables import EMBED
from stages.base import MapStage, ShardInput, ShardOutput
from stages.image_tower import ImageTower, check_tower, tower_identity
from stages.images import decode_rgb

_BATCHES_AHEAD = 2
_UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
"""What Pillow's readers raise on bytes that are not whole (a broken PNG is a SyntaxError there)."""


class EmbedSection(StageSection, ModelRef):
    """The image tower."""

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
    batch_size: int = runtime(
        64, ge=1, le=4096, description="images in one forward pass; another size may change a vector's last bit"
    )
    decode_threads: int = runtime(2, ge=1, le=64, description="threads that decode and resize ahead of the model")

    @model_validator(mode="after")
    def _revision_is_the_hubs(self) -> "EmbedSection":
        if self.revision is not None and is_own_name(self.model):
            raise ValueError("revision pins a hub model (org/name); of open_clip's own names `pretrained` says all")
        return self


class EmbedStage(MapStage):
    """One unit vector an image; what does not decode stops here."""

    name = "embed"
    version = 1
    schema = EMBED
    rows_from = "download"
    config: EmbedSection

    def models(self) -> dict[str, str]:
        return {"model": tower_identity(self.config, self.config.pretrained)}

    def check(self) -> None:
        check_tower(self.config, self.config.pretrained)

    def open(self) -> None:
        config = self.config
        device = config.resources.device
        self._pool = ThreadPoolExecutor(config.decode_threads, thread_name_prefix="decode")
        try:
            self._tower = ImageTower(config, config.pretrained, config.precision, device)
        except Exception as e:
            raise SetupError(
                f"embed: the model {config.model} cannot be loaded on {device}: {e}. Check embed.model, "
                "embed.pretrained and embed.revision, and that the weights can be had from here."
            ) from e

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def process(self, shard: ShardInput) -> ShardOutput:
        uids: list[str] = []
        drops: list[Drop] = []
        vectors = [np.empty((0, self._tower.width), np.float16)]
        for batch in self._decoded(shard):
            prepared = []
            for uid, url, image in batch:
                try:
                    prepared.append(image.result())
                    uids.append(uid)
                except _UNDECODABLE as e:
                    drops.append(Drop(uid, url, Reason.DECODE, str(e)))
            if prepared:
                vectors.append(self._tower.encode(prepared))
        width = self._tower.width
        flat = pa.array(np.concatenate(vectors).reshape(-1), pa.float16())
        sized = EMBED.field("embedding").with_type(pa.list_(pa.float16(), width))
        columns = [pa.array(uids, pa.string()), pa.FixedSizeListArray.from_arrays(flat, width)]
        return ShardOutput(pa.table(columns, schema=pa.schema([EMBED.field("uid"), sized])), drops)

    def _decoded(self, shard: ShardInput) -> Iterator[list[tuple[str, str, Future[Any]]]]:
        """Batches in row order; while one is computed the next ones decode."""
        ahead: deque[list[tuple[str, str, Future[Any]]]] = deque()
        table = shard.tables["download"].select(["uid", "url", "image_offset", "image_bytes"])
        for start in range(0, table.num_rows, self.config.batch_size):
            rows = table.slice(start, self.config.batch_size).to_pylist()
            ahead.append([(row["uid"], row["url"], self._submit(shard, row)) for row in rows])
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft()
        yield from ahead

    def _submit(self, shard: ShardInput, row: dict[str, Any]) -> Future[Any]:
        data = shard.images.read(shard.shard, row["image_offset"], row["image_bytes"])
        return self._pool.submit(lambda: self._tower.prepare(decode_rgb(data)))
