"""The pictures that benchmarks work on."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from demo.encodings import jpeg
from demo.scene import render

DISTINCT = 48
"""Pictures rendered; where more are asked for, they come again in turn."""


def scene_jpegs(count: int) -> list[bytes]:
    """The first scenes as JPEG files with edges of 512 to 768 px, `min(count, DISTINCT)` of them."""
    return [jpeg(render(seed).image) for seed in range(min(count, DISTINCT))]


def photographs(count: int, size: tuple[int, int]) -> list[bytes]:
    """Scenes of one size as JPEG files, with a camera's noise, without which they would decode too easily."""
    noise = np.random.default_rng(0)
    files = []
    for seed in range(count):
        pixels = np.asarray(render(seed, size).image, np.float32)
        pixels += noise.normal(0, 6, pixels.shape[:2])[..., None]
        files.append(jpeg(Image.fromarray(pixels.clip(0, 255).astype(np.uint8))))
    return files


class MemoryImages:
    """An ImageSource over one object's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, shard: str, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


def laid_out(files: Sequence[bytes]) -> tuple[list[dict[str, int]], MemoryImages]:
    """Files one behind the other: columns image_offset and image_bytes of each, and the object that they lie in."""
    places, offset = [], 0
    for file in files:
        places.append({"image_offset": offset, "image_bytes": len(file)})
        offset += len(file)
    return places, MemoryImages(b"".join(files))
