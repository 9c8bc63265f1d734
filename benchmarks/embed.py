"""What the embed stage costs over the bare loop of its model.

    python -m benchmarks.embed [--json] [--images N] [--rounds N] [--model MODEL]

The bare loop runs the same weights over the same pictures, which were decoded and prepared before the clock starts.
"""

import contextlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.answer import show
from benchmarks.command import parser
from benchmarks.comparison import Comparison, compare
from benchmarks.machine import machine
from benchmarks.pictures import MemoryImages, scene_jpegs
from benchmarks.threads import torch_threads
from demo.weights import TRAINED
from schemas.errors import RequestError, SetupError
from schemas.tables import DOWNLOAD
from stages.base import ShardInput, ShardOutput, shard_name
from stages.embed import EmbedSection, EmbedStage
from stages.image_tower import ImageTower
from stages.images import decode_rgb


def measure(model: str, images: int, rounds: int) -> dict[str, Any]:
    """The comparison, as `show` takes it, and the seconds of each step done alone.

    Args:
        model: as `embed.model`, without open_clip's own names.
        images: rows of the shard.

    Raises:
        RequestError, SetupError: the model cannot be had.
    """
    section = EmbedSection(model=model, pretrained=None, precision="float32", batch_size=16)
    pictures = scene_jpegs(images)
    files = [pictures[i % len(pictures)] for i in range(images)]
    shard = _shard(files)
    stage = EmbedStage(section)
    stage.check()
    stage.open()
    threads = max(1, int(section.resources.cpus))
    with contextlib.closing(stage), torch_threads(threads):
        tower = ImageTower(section, section.pretrained, section.precision, section.resources.device)
        prepared, decode_s, prepare_s = _prepared(tower, files)
        starts = range(0, images, section.batch_size)

        def bare() -> np.ndarray:
            return np.concatenate([tower.encode(prepared[i : i + section.batch_size]) for i in starts])

        done = compare(lambda: lambda: stage.process(shard), lambda: bare, _same_vectors, rounds)
    encode_s = statistics.median(r.against_s for r in done)
    alone_s = decode_s + prepare_s + encode_s
    return {
        "benchmark": "embed",
        "machine": machine("torch", "open_clip_torch", "pillow"),
        "setting": {
            "images": images,
            "bytes": sum(map(len, files)),
            "precision": section.precision,
            "batch_size": section.batch_size,
            "decode_threads": section.decode_threads,
            "torch_threads": threads,
            "rounds": rounds,
        },
        "comparisons": [Comparison("the embed stage", "the bare model loop", images, "rows", done).as_json()],
        "steps_alone": {
            "decode_s": decode_s,
            "prepare_s": prepare_s,
            "encode_s": encode_s,
            "decode_share": decode_s / alone_s,
            "prepare_share": prepare_s / alone_s,
            "encode_share": encode_s / alone_s,
        },
    }


def _shard(files: list[bytes]) -> ShardInput:
    rows, offset = [], 0
    for i, file in enumerate(files):
        row = {"uid": f"{i:032x}", "url": f"http://h.test/{i}.jpg", "image_offset": offset, "image_bytes": len(file)}
        rows.append(row)
        offset += len(file)
    table = pa.Table.from_pylist(rows, schema=DOWNLOAD)
    return ShardInput(shard_name(0), {"download": table}, MemoryImages(b"".join(files)), Path())


def _prepared(tower: ImageTower, files: list[bytes]) -> tuple[list[Any], float, float]:
    """What the model takes, and the seconds that one thread decoded and prepared."""
    tower.prepare(decode_rgb(files[0]))  # untimed, as every side's first time
    prepared, decode_s, prepare_s = [], 0.0, 0.0
    for file in files:
        start = time.perf_counter()
        image = decode_rgb(file)
        decoded = time.perf_counter()
        prepared.append(tower.prepare(image))
        decode_s += decoded - start
        prepare_s += time.perf_counter() - decoded
    return prepared, decode_s, prepare_s


def _same_vectors(output: ShardOutput, vectors: np.ndarray) -> bool:
    column = output.rows.column("embedding").combine_chunks()
    return np.array_equal(column.flatten().to_numpy(zero_copy_only=False), vectors.reshape(-1))


def main(arguments: Sequence[str] | None = None) -> None:
    command = parser("embed", "The embed stage against the bare loop of its model.", 200)
    command.add_argument("--model", help="open_clip folder or hub id; without it the demo's own")
    given = command.parse_args(arguments)
    try:
        answer = measure(given.model or str(TRAINED / "clip"), given.images, given.rounds)
    except (RequestError, SetupError) as error:
        command.error(str(error))
    show(answer, given.json)


if __name__ == "__main__":
    main()
