"""The image tower of an open_clip model: RGB pictures in, unit vectors out."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experts.open_clip_model import CONFIG_FILE, is_own_name, load_open_clip, open_clip_name
from schemas.errors import RequestError
from schemas.identity import model_identity
from schemas.section import ModelRef
from stages.devices import out_of_memory

_CPU_BATCH = 16
"""On a CPU the rate is flat from 8 images on."""
_PASS_FLOPS = 8e12
"""Work of one forward pass on a GPU: at half of an H200's dense bf16 rate it takes 16 ms, ten times what it costs to
launch the kernels of a 24-layer tower; a slower GPU only takes longer over it."""
_GPU_BATCHES = (8, 1024)
_LONGEST = 8
"""Of a strip, the middle that is this many times as long as it is wide says all that the centre crop keeps."""


def check_tower(ref: ModelRef, pretrained: str | None) -> None:
    """Look, without loading weights, for a name that open_clip does not know.

    Raises:
        RequestError: no such folder, model or weights tag.
    """
    if not is_own_name(ref.model):
        model_identity(ref)
        folder = Path(ref.model)
        if folder.is_dir() and not (folder / CONFIG_FILE).is_file():
            raise RequestError(
                f"embed.model: {folder} holds no {CONFIG_FILE}. Give a folder that open_clip saved, a hub id "
                "(org/name), or one of open_clip's own names."
            )
        return
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(ref.model)
    if not tags:
        raise RequestError(
            f"embed.model: open_clip has no weights for {ref.model}. Its models are listed by "
            "`python -c 'import open_clip; print(open_clip.list_pretrained())'`; a hub model is org/name."
        )
    if pretrained not in tags:
        raise RequestError(f"embed.pretrained: {ref.model} has no weights {pretrained}. It has: {', '.join(tags)}.")


@dataclass(frozen=True)
class _Pass:
    """One forward pass under way: its vectors on the CPU once `done`, and what tells how long it took."""

    vectors: Any
    begun: Any
    done: Any

    def wait(self) -> float:
        """Seconds that the device worked on it."""
        if isinstance(self.done, float):
            return float(self.done - self.begun)
        self.done.synchronize()
        return float(self.begun.elapsed_time(self.done)) / 1e3


@dataclass(frozen=True)
class Encoding:
    """A batch that the tower was given; on a GPU it may still be under way."""

    passes: list[_Pass]

    def result(self) -> tuple[np.ndarray, float]:
        """float16 vectors of (batch, width), of unit length before the cast; seconds that the device worked on them.

        Raises:
            FloatingPointError: the model gives NaN or infinity.
        """
        seconds = sum(one.wait() for one in self.passes)
        vectors = np.concatenate([one.vectors.numpy() for one in self.passes])
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the image tower gave vectors that are not finite")
        return vectors, seconds


class ImageTower:
    """Loads the model once.

    Every forward pass of a tower has the same shape: a batch is `batch` pictures, whatever lies in the places that are
    not used. So on one kind of device a vector does not depend on an image's neighbours, on how many images a shard has
    or on where a run was interrupted. A pass of another size may give other last bits: on a CPU ViT-B/32 gives the same
    bytes from 4 images on and one unit in float16's last place for 1; a GPU takes other kernels for other shapes, which
    in bfloat16 is more. So `auto` looks at the model and the kind of device, not at a clock or at memory that happens
    to be free; only a pass that runs out of memory is made in halves, here and from then on.

    Attributes:
        width: length of a vector.
        batch: pictures in one forward pass.
        least: (width, height) in pixels below which a decoded picture would have to be enlarged.
        flops: floating point operations of one image's forward pass (a multiplication and an addition are two), counted
            by torch's FlopCounterMode.
    """

    def __init__(
        self, ref: ModelRef, pretrained: str | None, precision: str, device: str, batch: int | str = "auto"
    ) -> None:
        """Load the model on `cpu` or `cuda`.

        Args:
            batch: pictures in one forward pass; `auto` takes 16 on a CPU, and on a GPU the smallest power of two (8 to
                1024) whose pass holds at least 8 TFLOP, which keeps the largest of today's busy.

        Raises:
            OSError, RuntimeError, ValueError: the weights cannot be had or do not fit.
        """
        import torch
        from torchvision.transforms import CenterCrop, Compose, Normalize

        self._model, transform = load_open_clip(open_clip_name(ref), device, precision, pretrained)
        *geometry, to_tensor, normalise = transform.transforms
        if not isinstance(normalise, Normalize):
            raise ValueError(f"the model's transform ends in {normalise}, not in a normalisation after {to_tensor}")
        self._geometry = Compose(geometry)
        self._crops = any(isinstance(step, CenterCrop) for step in geometry)
        self._dtype = getattr(torch, precision)
        self._device = device
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, 3, 1, 1)
            for values in (normalise.mean, normalise.std)
        )
        self._copies = torch.cuda.Stream() if device == "cuda" else None
        height, width, _ = np.asarray(self._geometry(Image.new("RGB", (8, 8)))).shape
        self.least = (width, height)
        self.width, self.flops = self._measured()
        self.batch = auto_batch(device, self.flops) if isinstance(batch, str) else batch
        self._rows = self.batch
        if device == "cuda":
            self.encode(self.buffer()).result()  # what does not fit is found before the first shard

    def buffer(self) -> Any:
        """Room for one batch: a uint8 tensor of (batch, height, width, 3), page-locked where a GPU reads it."""
        import torch

        width, height = self.least
        return torch.zeros((self.batch, height, width, 3), dtype=torch.uint8, pin_memory=self._device == "cuda")

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The model's own resize and crop: uint8 of (height, width, 3). Thread-safe."""
        return np.asarray(self._geometry(_without_ends(image) if self._crops else image), np.uint8)

    def encode(self, pictures: Any) -> Encoding:
        """Normalise and encode a buffer, which must stay as it is until the result is there: a GPU is only queued work.

        Raises:
            torch.OutOfMemoryError: one picture alone does not fit.
        """
        passes: list[_Pass] = []
        start = 0
        while start < len(pictures):
            try:
                passes.append(self._forward(pictures[start : start + self._rows]))
                start += self._rows
                continue
            except Exception as error:
                if self._rows == 1 or not out_of_memory(error):
                    raise
            # Outside the handler: the traceback holds the failed pass's tensors.
            self._rows = max(1, self._rows // 2)
        return Encoding(passes)

    def _forward(self, pictures: Any) -> _Pass:
        import torch

        if self._copies is None:
            begun = time.perf_counter()
            with torch.inference_mode():
                vectors = self._unit(pictures)
            return _Pass(vectors, begun, time.perf_counter())
        computing = torch.cuda.current_stream()
        begun, done = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.inference_mode():
            with torch.cuda.stream(self._copies):  # beside the pass before this one
                here = pictures.to(self._device, non_blocking=True)
            computing.wait_stream(self._copies)
            here.record_stream(computing)
            begun.record(computing)
            unit = self._unit(here)
            vectors = torch.empty(unit.shape, dtype=unit.dtype, pin_memory=True)
            vectors.copy_(unit, non_blocking=True)
            done.record(computing)
        return _Pass(vectors, begun, done)

    def _unit(self, pictures: Any) -> Any:
        """float16 unit vectors of uint8 pictures on the device, by the arithmetic of ToTensor and Normalize."""
        import torch

        pixels = pictures.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        pixels = pixels.div_(255).sub_(self._mean).div_(self._std).to(self._dtype)
        features = self._model.encode_image(pixels).float()
        return torch.nn.functional.normalize(features, dim=-1).half()

    def _measured(self) -> tuple[int, float]:
        """A vector's length, and the operations of one image. Fused attention is not counted, so it is taken apart."""
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        width, height = self.least
        one = torch.zeros((1, 3, height, width), dtype=self._dtype, device=self._device)
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with (
                torch.inference_mode(),
                sdpa_kernel(SDPBackend.MATH),
                FlopCounterMode(display=False) as counter,
            ):
                vector = self._model.encode_image(one)
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
        return int(vector.shape[1]), float(counter.get_total_flops())


def auto_batch(device: str, flops: float) -> int:
    """Pictures in one forward pass, from what one of them costs; see ImageTower."""
    if device == "cpu":
        return _CPU_BATCH
    least, most = _GPU_BATCHES
    return int(min(max(2 ** math.ceil(math.log2(_PASS_FLOPS / flops)), least), most))


def _without_ends(image: Image.Image) -> Image.Image:
    """A strip without its ends, which the centre crop drops anyway: resized with them it would take gigabytes."""
    width, height = image.size
    most = _LONGEST * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))
