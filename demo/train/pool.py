"""Rendered scenes of a split, cached on disk as memory maps: rendering is paid once, whatever is trained on them."""

import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo.scene import render, scene_size
from demo.split import Split, seeds
from demo.truth import SceneTruth
from demo.world import VERSION

SIDE = 192
"""Pictures are squashed to squares of this many px: enough to crop 160 px from, small enough to keep in memory."""
GRID = 48
"""Disparity and owners are kept on a grid of this many cells a side, 4 px of `SIDE` each."""
CHUNK = 64
"""Scenes that are rendered as one piece of work."""
CACHE = Path(".cache/scenes")
LONG_EDGE = (240, 360)
"""Scenes are rendered with a long edge between these, px: a model must not get used to one thickness of line."""

_PIXELS, _DISPARITY, _OWNERS = "images.u8", "disparity.f16", "owners.u8"


@dataclass(frozen=True)
class ScenePool:
    """The first scenes of a split. Rows of a pool are the same rows in a larger one.

    Attributes:
        version: of the data: the world's version and a digest of a few scenes' pixels.
        images: uint8 (n, SIDE, SIDE, 3), RGB; the whole picture squashed to a square, `truths` have its true size.
        disparity: float16 (n, GRID, GRID), inverse distance in 1/m, 0 for the sky; the mean of each cell.
        owners: uint8 (n, GRID, GRID): 0 where no object is in the middle of the cell, else i + 1 for
            `truths[row].objects[i]`.
        truths: n scenes; their sizes and boxes are those of the small renderings.
    """

    split: Split
    version: str
    images: np.ndarray
    disparity: np.ndarray
    owners: np.ndarray
    truths: list[SceneTruth]

    def __len__(self) -> int:
        return len(self.truths)

    def boxes(self, row: int) -> np.ndarray:
        """Visible boxes x1, y1, x2, y2 as fractions 0..1 of the picture: float32 (objects, 4), near to far."""
        truth = self.truths[row]
        boxes = np.array([o.visible_box for o in truth.objects], np.float32).reshape(-1, 4)
        return boxes / np.array([truth.width, truth.height] * 2, np.float32)


def open_pool(split: Split, count: int, cache: Path = CACHE, workers: int = 1) -> ScenePool:
    """The first `count` scenes of a split; those that the cache lacks are rendered first (about 15 ms each).

    An interrupted call loses at most the chunks under way; several processes may build the same pool at once.

    Args:
        workers: processes that render.
    """
    folder = cache / data_version() / f"{split}-{SIDE}"
    folder.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-count // CHUNK))
    missing = [(folder, split, chunk) for chunk in chunks if not _truth_file(folder, chunk).is_file()]
    if workers > 1 and len(missing) > 1:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for _ in pool.imap_unordered(_build, missing):
                pass
    else:
        for task in missing:
            _build(task)
    texts = [_truth_file(folder, chunk).read_text(encoding="utf-8") for chunk in chunks]
    truths = [SceneTruth.from_json(data) for text in texts for data in json.loads(text)][:count]

    def mapped(name: str, dtype: type, *shape: int) -> np.ndarray:
        return np.memmap(folder / name, dtype, "r", shape=(count, *shape))

    return ScenePool(
        split,
        data_version(),
        mapped(_PIXELS, np.uint8, SIDE, SIDE, 3),
        mapped(_DISPARITY, np.float16, GRID, GRID),
        mapped(_OWNERS, np.uint8, GRID, GRID),
        truths,
    )


@functools.cache
def data_version() -> str:
    """The world's version and a digest of what the renderer gives now, so that no stale cache is ever used."""
    digest = hashlib.sha256()
    for seed in seeds("validation", 16):
        scene = render(seed, (160, 128))
        digest.update(scene.image.tobytes() + scene.disparity.tobytes() + repr(scene.truth).encode())
    return f"{VERSION}-{digest.hexdigest()[:10]}"


def small_size(seed: int) -> tuple[int, int]:
    """(width, height) in px at which a pool renders a seed: its own aspect ratio, a long edge within `LONG_EDGE`."""
    width, height = scene_size(seed)
    share = random.Random(f"pool {seed}").uniform(*LONG_EDGE) / max(width, height)
    return round(width * share), round(height * share)


def _truth_file(folder: Path, chunk: int) -> Path:
    """Also the marker of a chunk: written whole, after everything else of it."""
    return folder / f"{chunk:05}.json"


def _build(task: tuple[Path, Split, int]) -> None:
    """Render one chunk, unless another process has or is about to have done so."""
    folder, split, chunk = task
    with (folder / f"{chunk:05}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _truth_file(folder, chunk).is_file():
            _render_chunk(folder, split, chunk)


def _render_chunk(folder: Path, split: Split, chunk: int) -> None:
    truths = []
    images = np.empty((CHUNK, SIDE, SIDE, 3), np.uint8)
    disparity = np.empty((CHUNK, GRID, GRID), np.float16)
    owners = np.empty((CHUNK, GRID, GRID), np.uint8)
    for i, seed in enumerate(seeds(split, CHUNK, first=chunk * CHUNK)):
        scene = render(seed, small_size(seed))
        images[i] = np.asarray(scene.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        disparity[i] = np.asarray(Image.fromarray(scene.disparity).resize((GRID, GRID), Image.Resampling.BOX))
        owners[i] = np.asarray(Image.fromarray(scene.owners).resize((GRID, GRID), Image.Resampling.NEAREST))
        truths.append(scene.truth.as_json())
    for name, values in ((_PIXELS, images), (_DISPARITY, disparity), (_OWNERS, owners)):
        _write_at(folder / name, values.tobytes(), chunk * values.nbytes)
    with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".draft", delete=False, encoding="utf-8") as draft:
        json.dump(truths, draft)
    Path(draft.name).replace(_truth_file(folder, chunk))


def _write_at(path: Path, data: bytes, offset: int) -> None:
    """Write into a file that other processes write elsewhere in; it is there on disk afterwards."""
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while data:
            written = os.pwrite(number, data, offset)
            data, offset = data[written:], offset + written
        os.fsync(number)
    finally:
        os.close(number)
