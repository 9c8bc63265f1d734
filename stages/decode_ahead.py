"""Pictures of a shard, read, decoded and prepared in threads ahead of the model that takes them."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.pictures import decode_rgb
from stages.base import ShardInput
from stages.image_tower import ImageTower

_BATCHES_AHEAD = 2
_SPAN_BYTES = 4 << 20
_GAP_BYTES = 64 << 10


@dataclass
class Batch:
    """Consecutive rows as the model takes them.

    Attributes:
        rows: row numbers of the shard's table, one for each place of the buffer in use.
        pictures: a buffer of the tower. It is used again for the batch after the next two.
        failed: why a place holds no picture of its row, by place.
    """

    rows: np.ndarray
    pictures: Any
    failed: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Span:
    """Rows whose bytes lie close together and are read at once, by the places of their pictures in the batch."""

    places: range
    offsets: list[int]
    sizes: list[int]


def decoded_batches(
    tower: ImageTower, threads: int, pool: ThreadPoolExecutor, shard: ShardInput, table: pa.Table, rows: np.ndarray
) -> Iterator[Batch]:
    """Batches in the order of `rows`; two more are read and decoded while the taker works on one.

    Memory: four buffers of the tower, and for every thread 4 MiB of files (one file where it is larger) and a picture.

    Args:
        threads: of `pool`.
        table: has image_offset and image_bytes; the images lie in the object of the shard's own name.
        rows: which rows of it.

    Raises:
        OSError: the images object cannot be read.
    """
    places = table.select(["image_offset", "image_bytes"])
    buffers = [tower.buffer() for _ in range(min(_BATCHES_AHEAD + 2, -(-len(rows) // tower.batch)))]
    ahead: deque[tuple[Batch, list[Future[dict[int, str]]]]] = deque()
    for number, start in enumerate(range(0, len(rows), tower.batch)):
        batch = Batch(rows[start : start + tower.batch], buffers[number % len(buffers)])
        ahead.append((batch, [pool.submit(_fill, tower, shard, batch, s) for s in _spans(places, batch.rows, threads)]))
        if len(ahead) > _BATCHES_AHEAD:
            yield _filled(*ahead.popleft())
    while ahead:
        yield _filled(*ahead.popleft())


def _filled(batch: Batch, filling: Sequence[Future[dict[int, str]]]) -> Batch:
    for done in filling:
        batch.failed |= done.result()
    return batch


def _spans(table: pa.Table, rows: np.ndarray, threads: int) -> Iterator[_Span]:
    """Cut a batch where the next image lies elsewhere, where enough bytes are together, and for every thread."""
    chosen = table.take(pa.array(rows))
    offsets, sizes = (chosen.column(name).to_pylist() for name in ("image_offset", "image_bytes"))
    most = -(-len(rows) // threads)
    first = 0
    for i in range(1, len(rows) + 1):
        if i < len(rows):
            gap = offsets[i] - offsets[i - 1] - sizes[i - 1]
            together = offsets[i] + sizes[i] - offsets[first]
            if 0 <= gap <= _GAP_BYTES and together <= _SPAN_BYTES and i - first < most:
                continue
        yield _Span(range(first, i), offsets[first:i], sizes[first:i])
        first = i


def _fill(tower: ImageTower, shard: ShardInput, batch: Batch, span: _Span) -> dict[int, str]:
    """Put a span's pictures into the batch's buffer; say which did not decode, and why."""
    start = span.offsets[0]
    data = memoryview(shard.images.read(shard.shard, start, span.offsets[-1] + span.sizes[-1] - start))
    pictures = batch.pictures.numpy()
    failed = {}
    for place, offset, size in zip(span.places, span.offsets, span.sizes, strict=True):
        try:
            picture = decode_rgb(bytes(data[offset - start : offset - start + size]), tower.least)
        except ValueError as error:
            failed[place] = str(error)
        else:
            pictures[place] = tower.prepare(picture)
    return failed
