"""What each perceive stage costs over the bare loop of its model, and where its time goes.

    python -m benchmarks.experts [--json] [--images N] [--rounds N] [--expert NAME ...] [--precision P] [--decode D]
        [--native] [--gpu]

The weights are the demo's, at the input sizes of the models that they stand for; the pictures are of 2 megapixels.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from benchmarks.answer import show
from benchmarks.command import parser
from benchmarks.comparison import Comparison, Round, compare
from benchmarks.device import device_name, gemm_rate, peak
from benchmarks.experts.cases import CASES, TAGS, Bare
from benchmarks.machine import machine
from benchmarks.pictures import laid_out, photographs
from benchmarks.threads import torch_threads
from experts.registry import EXPERTS
from schemas.pictures import decode_rgb
from schemas.tables import SELECT, TAGS_PRIOR
from stages.base import ShardInput, ShardOutput, shard_name
from stages.perceive import PerceiveStage

PICTURE = (1632, 1224)
"""2 megapixels."""
DISTINCT = 12


def measure(
    experts: Sequence[str],
    images: int,
    rounds: int,
    precision: str = "float32",
    full: bool = True,
    gpu: bool = False,
    decode: str = "whole",
) -> dict[str, Any]:
    """Every expert's comparison, as `show` takes it, and where the time of its stage goes.

    Args:
        images: of the shard.
        full: models at full-size input; False takes the demo's own sizes.
        decode: as the experts' setting; the bare loop has whole pictures.

    Raises:
        SetupError: a model cannot be loaded.
        ContractError: stage and bare loop say different things.
    """
    device = "cuda" if gpu else "cpu"
    distinct = photographs(min(images, DISTINCT), PICTURE)
    files = [distinct[i % len(distinct)] for i in range(images)]
    answer: dict[str, Any] = {
        "benchmark": "experts",
        "machine": machine("torch", "transformers", "timm", "rapidocr", "pillow"),
        "setting": {
            "device": device_name(device),
            "images": images,
            "width": PICTURE[0],
            "height": PICTURE[1],
            "weights": f"the demo's, {'at full-size input' if full else 'at their own input'}",
            "precision": precision,
            "decode": decode,
            "rounds": rounds,
        },
        "comparisons": [],
    }
    for name in experts:
        with tempfile.TemporaryDirectory() as folder, torch_threads(1):
            comparison, where = _one(CASES[name], Path(folder), files, rounds, precision, full, device, decode)
        answer["comparisons"].append(comparison.as_json())
        answer[name] = where
    return answer


def _one(
    case: type[Bare],
    folder: Path,
    files: list[bytes],
    rounds: int,
    precision: str,
    full: bool,
    device: str,
    decode: str,
) -> tuple[Comparison, dict[str, Any]]:
    import torch

    place = case.place(folder, full)
    bare = case(place, device, precision)
    with contextlib.closing(_stage(case, place, precision, device, decode)) as stage, torch.inference_mode():
        shard = _shard(files)
        decoded: dict[bytes, Image.Image] = {file: decode_rgb(file) for file in dict.fromkeys(files)}
        ready = dict(zip(decoded, bare.prepared(list(decoded.values())), strict=True))
        batches = [
            bare.collated([ready[file] for file in files[start : start + case.batch]])
            for start in range(0, len(files), case.batch)
        ]
        metrics: list[dict[str, float]] = []

        def staged() -> ShardOutput:
            begun = time.thread_time()
            output = stage.process(shard)
            metrics.append(output.metrics | {"thread_seconds": time.thread_time() - begun})
            return output

        def loop() -> list[Any]:
            return [one for batch in batches for one in bare.run(batch)]

        def same(output: ShardOutput, answers: list[Any]) -> bool:
            rows = output.rows.to_pylist()
            return all(r["error"] is None and bare.same(r, a) for r, a in zip(rows, answers, strict=True))

        done = compare(lambda: staged, lambda: loop, same, rounds)
        flops = _flops(bare, batches[0])
    return Comparison(f"perceive.{case.expert}", "the bare model loop", len(files), "images", done), _where(
        metrics[1:], done, len(files), flops, device, precision
    )


def _stage(case: type[Bare], place: Path, precision: str, device: str, decode: str) -> PerceiveStage:
    settings: dict[str, Any] = {"batch_size": case.batch}
    if "model" in EXPERTS[case.expert].section.model_fields:
        settings |= {"model": str(place), "precision": precision}
    settings |= {"resources": {"gpus": float(device == "cuda")}, "decode": decode, **case.settings}
    stage = PerceiveStage(case.expert, EXPERTS[case.expert].section.model_validate(settings))
    stage.open()
    return stage


def _shard(files: list[bytes]) -> ShardInput:
    """All files as selected rows, each with the same tags."""
    places, images = laid_out(files)
    uids = [f"{i:032x}" for i in range(len(files))]
    chosen = {"image_shard": shard_name(0), "width": PICTURE[0], "height": PICTURE[1], "orientation": 1}
    rows = [
        dict.fromkeys(SELECT.names) | {"uid": uid, "url": f"http://h.test/{uid}", **chosen, **place}
        for uid, place in zip(uids, places, strict=True)
    ]
    tags = [{"uid": uid, "tags": TAGS, "error": None} for uid in uids]
    tables = {
        "select": pa.Table.from_pylist(rows, schema=SELECT),
        "perceive.tags": pa.Table.from_pylist(tags, schema=TAGS_PRIOR),
    }
    return ShardInput(shard_name(0), tables, images, Path())


def _where(
    metrics: list[dict[str, float]],
    done: list[Round],
    images: int,
    flops: float | None,
    device: str,
    precision: str,
) -> dict[str, Any]:
    """Seconds an image: of the stage, of its model, of waiting for pictures, of threads preparing them.

    `thread_ratio` is the CPU time of the bare loop over that of the thread in which the stage's model runs.
    """

    def median(name: str) -> float:
        return statistics.median(one[name] for one in metrics) / images

    gpu = device == "cuda"
    where: dict[str, Any] = {
        "stage_s": statistics.median(r.measured_s for r in done) / images,
        "model_s": median("expert_seconds"),
        "wait_s": median("wait_seconds"),
        "prepare_in_threads_s": median("prepare_seconds"),
        "bare_s": statistics.median(r.against_s for r in done) / images,
        "thread_cpu_s": median("thread_seconds"),
        "thread_ratio": statistics.median(
            r.against_cpu_s / one["thread_seconds"] for r, one in zip(done, metrics, strict=True)
        ),
    }
    where["share_of_model"] = where["model_s"] / where["stage_s"]
    where["share_of_wait"] = where["wait_s"] / where["stage_s"]
    if flops is not None:
        rate = flops / (where["model_s"] if gpu else statistics.median(r.against_cpu_s for r in done) / images)
        most = peak(device, precision)
        where |= {
            "gflop_per_image": flops / 1e9,
            "share_of_gemm": rate / gemm_rate(device, precision),
            "mfu": rate / most if most else None,
        }
    return where


def _flops(bare: Bare, batch: Any) -> float | None:
    """Floating point operations an image by torch's FlopCounterMode; None where torch does not compute."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    if not isinstance(batch, torch.Tensor):
        return None
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        bare.run(batch)
    return float(counter.get_total_flops()) / len(batch)


def main(arguments: Sequence[str] | None = None) -> None:
    command = parser("experts", "The perceive stages against the bare loops of their models.", 32)
    command.add_argument("--expert", nargs="+", choices=tuple(CASES), default=list(CASES), help="only these")
    command.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    command.add_argument("--decode", choices=("whole", "scaled"), default="whole", help="as the experts' setting")
    command.add_argument("--native", action="store_true", help="the demo's own, small input sizes")
    command.add_argument("--gpu", action="store_true", help="run on the GPU")
    given = command.parse_args(arguments)
    answer = measure(
        given.expert, given.images, given.rounds, given.precision, not given.native, given.gpu, given.decode
    )
    show(answer, given.json)


if __name__ == "__main__":
    main()
