"""Augmentation of batches of pictures: windows into them, what happens to pictures on the web, light and colour.

There are no flips, because captions say left and right, and no shifts of hue, because they say colours. Pictures are
uint8 (batch, side, side, 3) until `light` makes a float tensor of them. A window is x1, y1, x2, y2 as fractions of the
picture; a batch of them is float32 (batch, 4), and boxes, maps and pictures are all cut by the same window.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import torch

WHOLE = np.array([0, 0, 1, 1], np.float32)
_FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R BT.601's weights, those of Pillow's mode L."""


def windows(rng: np.random.Generator, count: int, least: float = 0.6, whole: float = 0.3) -> np.ndarray:
    """Random windows, each anywhere within its picture.

    Args:
        least: smallest side of a window; width and height differ from each other by at most a fifth.
        whole: share of the pictures that are taken as they are.
    """
    side = rng.uniform(least, 1, count)
    width = np.clip(side * rng.uniform(0.9, 1.1, count), least, 1)
    height = np.clip(side * rng.uniform(0.9, 1.1, count), least, 1)
    x, y = rng.random(count) * (1 - width), rng.random(count) * (1 - height)
    out = np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)
    out[rng.random(count) < whole] = WHOLE
    return out


def cut(images: np.ndarray, where: np.ndarray, side: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """What each window shows, as uint8 (batch, side, side, 3).

    Args:
        rng: chooses the filter of each picture; without one all are bicubic, as the models' own transforms are.
    """
    chosen = rng.integers(len(_FILTERS), size=len(images)) if rng else np.zeros(len(images), int)
    out = np.empty((len(images), side, side, 3), np.uint8)
    for i, (image, window) in enumerate(zip(images, where, strict=True)):
        box = tuple((window * image.shape[0]).clip(0, image.shape[0]).tolist())
        out[i] = np.asarray(Image.fromarray(image).resize((side, side), _FILTERS[chosen[i]], box=box))
    return out


def cut_boxes(boxes: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) of a picture as fractions of one window (4,), clipped to it, and the share of each that is in it."""
    x1, y1, x2, y2 = window
    moved = (boxes - [x1, y1, x1, y1]) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
    inside = moved.clip(0, 1)
    return inside.astype(np.float32), _areas(inside) / _areas(moved).clip(1e-9)


def cut_cells(maps: np.ndarray, where: np.ndarray, grid: int) -> np.ndarray:
    """What maps (batch, g, g) hold in the middle of each cell of each window: (batch, grid, grid)."""
    size = maps.shape[1]
    middle = (np.arange(grid) + 0.5) / grid
    x1, y1, x2, y2 = where.T[:, :, None]
    columns = ((x1 + (x2 - x1) * middle) * size).astype(int).clip(0, size - 1)
    rows = ((y1 + (y2 - y1) * middle) * size).astype(int).clip(0, size - 1)
    return maps[np.arange(len(maps))[:, None, None], rows[:, :, None], columns[:, None, :]]


def spoil(images: np.ndarray, rng: np.random.Generator, share: float = 0.5) -> np.ndarray:
    """What the web does to pictures, to a share of them: small copies, re-encoding, noise, watermarks.

    JPEG at quality 20 to 90 for a half of that share, a copy at 0.4 to 0.9 of the size for a quarter, noise of up to
    12 of 255 for a quarter, a watermark for a tenth.
    """
    out = images.copy()
    side = images.shape[1]
    for i in np.flatnonzero(rng.random(len(images)) < share):
        small, noisy, marked, encoded = rng.random(4) < (0.25, 0.25, 0.1, 0.5)
        picture = Image.fromarray(images[i])
        if small:
            less = round(side * rng.uniform(0.4, 0.9))
            picture = picture.resize((less, less), _FILTERS[rng.integers(3)])
            picture = picture.resize((side, side), _FILTERS[rng.integers(3)])
        if marked:
            picture = _watermarked(picture, rng)
        if noisy:
            grain = rng.standard_normal((side, side, 3), np.float32) * np.float32(rng.uniform(2, 12))
            picture = Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))
        if encoded:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=int(rng.integers(20, 91)))
            picture = Image.open(file)
        out[i] = np.asarray(picture)
    return out


def light(
    images: np.ndarray, rng: np.random.Generator, mean: Sequence[float], std: Sequence[float], strength: float = 1.0
) -> "torch.Tensor":
    """Exposure, contrast, saturation and white balance at random, and the model's normalisation, in one product.

    Args:
        mean, std: of the model's pictures, three numbers each, for values 0..1.
        strength: 1 gives contrast and saturation within 30 %, brightness within 0.12 of the range, channels within 6 %.

    Returns:
        float32 (batch, 3, side, side).
    """
    count = len(images)
    contrast, saturation = 1 + strength * rng.uniform(-0.3, 0.3, (2, count, 1, 1)).astype(np.float32)
    gains = 1 + strength * rng.uniform(-0.06, 0.06, (count, 3, 1)).astype(np.float32)
    offset = strength * rng.uniform(-0.12, 0.12, (count, 1)).astype(np.float32)
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA
    mix = gains * contrast * mix
    shift = offset + 0.5 * (1 - contrast[:, :, 0])  # contrast turns about the middle grey
    return _affine(images, mix, np.broadcast_to(shift, (count, 3)), mean, std)


def plain(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> "torch.Tensor":
    """Pictures normalised and nothing else: float32 (batch, 3, side, side)."""
    mix = np.broadcast_to(np.eye(3, dtype=np.float32), (len(images), 3, 3))
    return _affine(images, mix, np.zeros((len(images), 3), np.float32), mean, std)


def _affine(
    images: np.ndarray, mix: np.ndarray, shift: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> "torch.Tensor":
    """(clip(mix @ pixel + shift) - mean) / std for pixels 0..1; picture by picture, so that each stays in the cache."""
    import torch

    count, side = images.shape[:2]
    products = torch.from_numpy(np.ascontiguousarray(mix / 255, np.float32))
    shifts = torch.from_numpy(np.ascontiguousarray(shift, np.float32))[:, :, None]
    middle, scale = (torch.tensor(list(values), dtype=torch.float32)[:, None] for values in (mean, std))
    out = torch.empty(count, 3, side * side)
    for i, image in enumerate(torch.from_numpy(np.ascontiguousarray(images)).view(count, side * side, 3)):
        torch.addmm(shifts[i], products[i], image.float().T, out=out[i]).clamp_(0, 1).sub_(middle).div_(scale)
    return out.view(count, 3, side, side)


def _watermarked(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Half-clear letters somewhere on the picture."""
    text = "".join(chr(c) for c in rng.integers(ord("a"), ord("z") + 1, rng.integers(4, 12)))
    layer = Image.new("L", picture.size)
    x, y = (rng.uniform(0, 0.7, 2) * picture.width).tolist()
    size = picture.width * float(rng.uniform(0.05, 0.14))
    ImageDraw.Draw(layer).text((x, y), text, fill=int(rng.integers(50, 150)), font_size=size)
    colour = (255, 255, 255) if rng.random() < 0.7 else (0, 0, 0)
    return Image.composite(Image.new("RGB", picture.size, colour), picture, layer)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
