"""What the embed stage costs over the bare loop of its model.

    python -m benchmarks.embed [--json] [--images N] [--rounds N] [--model MODEL] [--precision P] [--gpu] [--batches]

The bare loop is open_clip's own model and transform over the same pictures, decoded and prepared before the clock
starts.
"""

import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from benchmarks.answer import show
from benchmarks.command import parser
from benchmarks.comparison import Comparison, compare
from benchmarks.device import device_name, gemm_rate, peak
from benchmarks.machine import machine
from benchmarks.pictures import laid_out, photographs
from benchmarks.threads import torch_threads
from experts.open_clip_model import load_open_clip, open_clip_name
from schemas.errors import RequestError, SetupError
from schemas.pictures import decode_rgb
from schemas.section import Resources
from schemas.tables import DOWNLOAD
from stages.base import ShardInput, ShardOutput, shard_name
from stages.embed import EmbedSection, EmbedStage
from stages.image_tower import ImageTower

PICTURE = (1632, 1224)
"""2 megapixels."""
_VISION = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}
_TEXT = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}


def measure(
    model: str | None,
    images: int,
    rounds: int,
    precision: Literal["float32", "bfloat16"] = "bfloat16",
    gpu: bool = False,
    batches: bool = False,
) -> dict[str, Any]:
    """The comparison, as `show` takes it, and the CPU seconds of each step done alone.

    Args:
        model: as `embed.model`, without open_clip's own names; None makes a ViT-B/32 of random weights.
        images: rows of the shard.
        batches: also time the bare model at growing batches.

    Raises:
        RequestError, SetupError: the model cannot be had.
    """
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            _random_tower(Path(folder))
        section = EmbedSection(
            model=model or folder,
            pretrained=None,
            precision=precision,
            decode_threads=None if gpu else 1,
            resources=Resources(gpus=float(gpu)),
        )
        stage = EmbedStage(section)
        stage.check()
        stage.open()
        bare = _Bare(section)
    distinct = photographs(min(images, 24), PICTURE)
    files = [distinct[i % len(distinct)] for i in range(images)]
    shard = _shard(files)
    threads = max(1, int(section.resources.cpus))
    with contextlib.closing(stage), torch_threads(threads):
        assert stage._tower is not None
        steps = _steps(stage._tower, bare, distinct)
        batch, flops = stage._tower.batch, stage._tower.flops
        metrics: list[dict[str, float]] = []
        own_s: list[float] = []

        def staged() -> ShardOutput:
            begun = time.thread_time()
            output = stage.process(shard)
            own_s.append(time.thread_time() - begun)
            metrics.append(output.metrics)
            return output

        prepared = bare.prepared(distinct, [i % len(distinct) for i in range(images)])
        done = compare(lambda: staged, lambda: lambda: bare.encode(prepared, batch), _same_vectors, rounds)
        growth = bare.growth(prepared[0], batch) if batches else {}
        gemm = gemm_rate(section.resources.device, precision)
    encode_s = statistics.median(r.against_s if gpu else r.against_cpu_s for r in done) / images
    computing_s = statistics.median(m["model_seconds"] / images for m in metrics[1:]) if gpu else encode_s
    rate = flops / computing_s
    most = peak(section.resources.device, precision)
    answer: dict[str, Any] = {
        "benchmark": "embed",
        "machine": machine("torch", "open_clip_torch", "pillow"),
        "setting": {
            "model": model or "ViT-B/32 of random weights",
            "device": device_name(section.resources.device),
            "images": images,
            "width": PICTURE[0],
            "height": PICTURE[1],
            "mean_bytes": sum(map(len, files)) / images,
            "precision": section.precision,
            "batch_size": batch,
            "decode_threads": section.threads,
            "torch_threads": threads,
            "rounds": rounds,
        },
        "comparisons": [Comparison("the embed stage", "the bare model loop", images, "rows", done).as_json()],
        "model_thread": {
            "cpu_s": statistics.median(own_s[1:]) / images,
            "ratio": statistics.median(r.against_cpu_s / s for r, s in zip(done, own_s[1:], strict=True)),
        },
        "model": {
            "gflop_per_image": flops / 1e9,
            "tflop_per_s": rate / 1e12,
            "gemm_tflop_per_s": gemm / 1e12,
            "share_of_gemm": rate / gemm,
            "mfu": rate / most if most else None,
        },
    }
    for way, (decode_s, prepare_s) in steps.items():
        total = decode_s + prepare_s + encode_s
        answer[f"steps_alone_{way}"] = {
            "decode_s": decode_s,
            "prepare_s": prepare_s,
            "encode_s": encode_s,
            "decode_share": decode_s / total,
            "prepare_share": prepare_s / total,
            "encode_share": encode_s / total,
        }
    answer["scaled_against_whole"] = bare.scaled_against_whole(distinct)
    return answer | ({"images_per_s_by_batch": growth} if batches else {})


class _Bare:
    """open_clip's model and transform, as its own examples use them."""

    def __init__(self, section: EmbedSection) -> None:
        import torch

        self._torch = torch
        self._device = section.resources.device
        self._dtype = getattr(torch, section.precision)
        name = open_clip_name(section)
        self._model, self._transform = load_open_clip(name, self._device, section.precision, section.pretrained)
        width = height = 0
        _, height, width = self._transform(_blank()).shape
        self._least = (width, height)

    def prepared(self, files: list[bytes], order: list[int]) -> Any:
        """Tensor of (len(order), 3, height, width) where the model is."""
        pictures = [self._transform(decode_rgb(file, self._least)) for file in files]
        return self._torch.stack([pictures[i] for i in order]).to(self._device, self._dtype)

    def encode(self, prepared: Any, batch: int) -> np.ndarray:
        """float16 unit vectors."""
        vectors = []
        with self._torch.inference_mode():
            for start in range(0, len(prepared), batch):
                features = self._model.encode_image(prepared[start : start + batch]).float()
                vectors.append(self._torch.nn.functional.normalize(features, dim=-1).half())
            encoded: np.ndarray = self._torch.cat(vectors).cpu().numpy()
        return encoded

    def growth(self, picture: Any, batch: int) -> dict[str, float]:
        """Images/s of the bare model at powers of two, up to four times the stage's batch or what memory holds."""
        rates = {}
        size = 1
        while size <= 4 * batch:
            try:
                batched = picture.expand(size, *picture.shape).contiguous()
                self.encode(batched, size)
                begun, rounds = time.perf_counter(), 0
                while rounds * size < 16 or time.perf_counter() - begun < 0.2:
                    self.encode(batched, size)
                    rounds += 1
                rates[str(size)] = rounds * size / (time.perf_counter() - begun)
            except self._torch.OutOfMemoryError:
                break
            size *= 2
        return rates

    def scaled_against_whole(self, files: list[bytes]) -> dict[str, float]:
        """Cosines between the vectors of files decoded at scale and decoded whole."""
        pairs = [
            self._torch.stack([self._transform(decode_rgb(file, least)) for least in (self._least, None)])
            for file in files[:8]
        ]
        vectors = [self.encode(pair.to(self._device, self._dtype), 2).astype(np.float64) for pair in pairs]
        cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in vectors]
        return {"median_cosine": statistics.median(cosines), "least_cosine": min(cosines)}


def _blank() -> Any:
    from PIL import Image

    return Image.new("RGB", (8, 8))


def _random_tower(folder: Path) -> None:
    """An open_clip folder: the image tower of ViT-B/32 at 224 px, and next to no text tower."""
    import torch
    from open_clip import CLIP
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = {"embed_dim": 512, "vision_cfg": _VISION, "text_cfg": _TEXT}
    weights = CLIP(**config).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": 224}}))


def _shard(files: list[bytes]) -> ShardInput:
    places, images = laid_out(files)
    rows = [{"uid": f"{i:032x}", "url": f"http://h.test/{i}.jpg"} | place for i, place in enumerate(places)]
    return ShardInput(shard_name(0), {"download": pa.Table.from_pylist(rows, schema=DOWNLOAD)}, images, Path())


def _steps(tower: ImageTower, bare: _Bare, files: list[bytes]) -> dict[str, tuple[float, float]]:
    """CPU seconds an image of decoding and of resizing and cropping, at scale and whole, in turns."""
    seconds = {"scaled": [0.0, 0.0], "whole": [0.0, 0.0]}
    for file in [files[0], *files]:
        for way, least in (("scaled", tower.least), ("whole", None)):
            begun = time.process_time()
            picture = decode_rgb(file, least)
            decoded = time.process_time()
            tower.prepare(picture)
            seconds[way][0] += decoded - begun
            seconds[way][1] += time.process_time() - decoded
    return {
        way: (decode_s / (len(files) + 1), prepare_s / (len(files) + 1))
        for way, (decode_s, prepare_s) in seconds.items()
    }


def _same_vectors(output: ShardOutput, vectors: np.ndarray) -> bool:
    """The stage fills its last batch up and the bare loop does not, so bits may differ."""
    column = output.rows.column("embedding").combine_chunks()
    ours = column.flatten().to_numpy(zero_copy_only=False).reshape(vectors.shape).astype(np.float32)
    return bool((np.einsum("ij,ij->i", ours, vectors.astype(np.float32)) > 0.999).all())


def main(arguments: Sequence[str] | None = None) -> None:
    command = parser("embed", "The embed stage against the bare loop of its model.", 192)
    command.add_argument("--model", help="open_clip folder or hub id; without it a ViT-B/32 of random weights")
    command.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    command.add_argument("--gpu", action="store_true", help="run on the GPU")
    command.add_argument("--batches", action="store_true", help="also time the bare model at growing batches")
    given = command.parse_args(arguments)
    try:
        answer = measure(given.model, given.images, given.rounds, given.precision, given.gpu, given.batches)
    except (RequestError, SetupError) as error:
        command.error(str(error))
    show(answer, given.json)


if __name__ == "__main__":
    main()
