"""Relative depth: Depth Anything through transformers, kept as a small 16-bit disparity map."""

import io
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from experts.base import Expert, ModelExpertSection, Prior, bounded, load_pretrained, torch_dtype
from schemas.section import located
from schemas.tables import DEPTH_PRIOR

LONGEST_SIDE = 4096
# The processor keeps the aspect ratio at a short side of 518: the tokens, and attention's square of them, grow with it.
LONGEST_ASPECT = 4.0
LEAST_DEPTH = 0.1  # metres, metric checkpoints: nearer than that would take the whole 16 bits
LEAST_RANGE = 1e-12


class DepthSection(ModelExpertSection):
    """Monocular depth."""

    model: str = located(
        "depth-anything/Depth-Anything-V2-Small-hf", description="hub id (org/name) or local folder of a depth model"
    )
    map_size: int = Field(256, ge=16, le=2048, description="longest side of the stored map, in pixels")


class Depth(Expert):
    """Depth Anything; larger values are nearer whatever the checkpoint's own convention."""

    name = "depth"
    version = 1
    schema = DEPTH_PRIOR
    config: DepthSection

    def open(self, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        self._processor, self._model = load_pretrained(
            self.name, self.config, AutoImageProcessor, AutoModelForDepthEstimation, device
        )
        self._metric = getattr(self._model.config, "depth_estimation_type", "relative") == "metric"
        self._device = device

    def look(self, images: list[Image.Image], context: list[dict[str, Prior]]) -> list[Prior]:
        import torch

        # Sizes follow the aspect ratio, so only images of one shape can share a batch.
        groups: dict[torch.Size, list[int]] = {}
        pixels = []
        for i, image in enumerate(images):
            one = self._processor(images=bounded(image, LONGEST_SIDE, LONGEST_ASPECT), return_tensors="pt").pixel_values
            pixels.append(one)
            groups.setdefault(one.shape, []).append(i)
        maps: list[np.ndarray] = [np.empty(0)] * len(images)
        for members in groups.values():
            batch = torch.cat([pixels[i] for i in members]).to(self._device, torch_dtype(self.config))
            with torch.inference_mode():
                predicted = self._model(pixel_values=batch).predicted_depth.float()
            for i, one in zip(members, predicted, strict=True):
                maps[i] = self._disparity(one, images[i].size)
        return [packed(one) for one in maps]

    def _disparity(self, predicted: Any, size: tuple[int, int]) -> np.ndarray:
        """Model output (h, w) as disparity of the image's aspect ratio, longest side `map_size`, float32."""
        import torch

        near = 1.0 / predicted.clamp(min=LEAST_DEPTH) if self._metric else predicted
        width, height = (max(1, round(side * self.config.map_size / max(size))) for side in size)
        scaled = torch.nn.functional.interpolate(near[None, None], (height, width), mode="bilinear", antialias=True)
        return scaled[0, 0].cpu().numpy()

    def close(self) -> None:
        self._model = self._processor = None


def packed(disparity: np.ndarray) -> Prior:
    """Disparity (h, w) as columns of schemas.tables.DEPTH_PRIOR. Raises ValueError where it is not finite."""
    low, high = float(disparity.min()), float(disparity.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("the depth model gave values that are not finite")
    levels = np.rint((disparity - low) / max(high - low, LEAST_RANGE) * 65535).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "PNG")
    return {"disparity_png": out.getvalue(), "disparity_min": low, "disparity_max": high}


def unpacked(prior: Prior) -> np.ndarray:
    """The disparity (h, w), float32, that `packed` put away, to 1/65535 of its range."""
    with Image.open(io.BytesIO(prior["disparity_png"])) as image:
        levels = np.asarray(image, dtype=np.float32)
    low, high = prior["disparity_min"], prior["disparity_max"]
    return (low + levels / 65535 * (high - low)).astype(np.float32)
