"""The pictures that benchmarks work on."""

from demo.encodings import jpeg
from demo.scene import render

DISTINCT = 48
"""Pictures rendered; where more are asked for, they come again in turn."""


def scene_jpegs(count: int) -> list[bytes]:
    """The first scenes as JPEG files with edges of 512 to 768 px, `min(count, DISTINCT)` of them."""
    return [jpeg(render(seed).image) for seed in range(min(count, DISTINCT))]


class MemoryImages:
    """An ImageSource over one object's bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, shard: str, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]
