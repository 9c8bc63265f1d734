"""Pictures as transformers' detectors of the DETR family take them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from experts.base import Pixels, bounded, stacked

# Processors that keep the aspect ratio stop at 1333 px or so; 4096 leaves them whatever they would look at.
LONGEST_SIDE = 4096
LONGEST_ASPECT = 8.0


@dataclass(frozen=True)
class MaskedPixels(Pixels):
    """Pixels, and which of them are picture.

    Attributes:
        mask: int64 tensor (height, width), 0 where the processor padded; None where it makes no mask.
    """

    mask: Any


def masked_pixels(processor: Any, image: Image.Image) -> MaskedPixels:
    """One RGB picture through a transformers image processor; thread-safe."""
    seen = bounded(image, LONGEST_SIDE, LONGEST_ASPECT)
    inputs = processor(images=seen, return_tensors="pt")
    mask = inputs["pixel_mask"][0] if "pixel_mask" in inputs else None
    return MaskedPixels(inputs["pixel_values"][0], image.size, mask)


def batched(prepared: list[MaskedPixels], device: str, dtype: Any) -> dict[str, Any]:
    """The model's `pixel_values` (n, 3, height, width) and, where there are masks, `pixel_mask` (n, height, width)."""
    import torch

    batch = {"pixel_values": stacked(list(prepared), device, dtype)}
    if prepared[0].mask is not None:
        batch["pixel_mask"] = torch.stack([one.mask for one in prepared]).to(device)
    return batch


def least_side(processor: Any) -> tuple[int, int] | None:
    """(width, height) that the processor shrinks to, for Expert.least; None where it says neither.

    One that keeps the aspect ratio brings the shorter side to `shortest_edge` or less, so both sides may be as short.
    """
    size: Mapping[str, int | None] = processor.size
    shortest = size.get("shortest_edge")
    width, height = size.get("width") or shortest, size.get("height") or shortest
    return None if width is None or height is None else (width, height)
