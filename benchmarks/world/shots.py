"""Scenes as the demo's web serves them, with their truth, and copies of them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from demo.encodings import cropped, jpeg, reencoded, resized, watermarked
from demo.metrics.depth import mean_map
from demo.scene import Scene, render, scene_size
from demo.split import seeds
from demo.train.pool import GRID
from demo.truth import SceneTruth

MEAN_MAP_SCENES = 256
MEAN_MAP_FIRST = 999_000_000
"""Of the validation seeds; far behind those on which recipes choose."""


def _cropped_more(image: Image.Image) -> bytes:
    dx, dy = round(image.width * 0.05), round(image.height * 0.05)
    return jpeg(image.crop((dx, dy, image.width - dx, image.height - dy)))


COPIES: Mapping[str, Callable[[Image.Image], bytes]] = {
    "reencoded": reencoded,
    "resized": resized,
    "watermarked": watermarked,
    "cropped": cropped,
    "reencoded_hard": lambda image: jpeg(image, 20),
    "cropped_more": _cropped_more,
    "brighter": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(1.2)),
    "mirrored": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}
"""The first four are those that the demo's web is planted with. A mirrored picture is another picture, not a copy:
captions say left and right."""


@dataclass(frozen=True)
class Shot:
    """One scene.

    Attributes:
        picture: JPEG at full size.
        copies: by kind.
        disparity: float32 (GRID, GRID), 1/m, of the picture squashed to a square; the mean of each cell.
        owners: uint8 (GRID, GRID): i + 1 where `truth.objects[i]` is in the middle of the cell, 0 where none is.
    """

    truth: SceneTruth
    picture: bytes
    copies: dict[str, bytes]
    disparity: np.ndarray
    owners: np.ndarray


def shoot(seed: int, kinds: Collection[str]) -> Shot:
    """Render a scene and make copies of these kinds."""
    scene = render(seed)
    return Shot(
        scene.truth,
        jpeg(scene.image),
        {kind: COPIES[kind](scene.image) for kind in kinds},
        *squashed(scene),
    )


def squashed(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Disparity and owners on the grid that `Shot` describes."""
    disparity = Image.fromarray(scene.disparity).resize((GRID, GRID), Image.Resampling.BOX)
    owners = Image.fromarray(scene.owners).resize((GRID, GRID), Image.Resampling.NEAREST)
    return np.asarray(disparity), np.asarray(owners)


def validation_mean_map() -> np.ndarray:
    """The mean map (GRID, GRID) of validation scenes, rendered at half their size."""
    maps = []
    for seed in seeds("validation", MEAN_MAP_SCENES, MEAN_MAP_FIRST):
        width, height = scene_size(seed)
        maps.append(squashed(render(seed, (width // 2, height // 2)))[0])
    return mean_map(np.stack(maps))
