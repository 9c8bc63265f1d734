"""Shards as the caption stage gets them, of rendered scenes: pictures, alt text, and priors as wrong as the demo's
experts are (`demo.captioner.noise.MEASURED`)."""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from demo.alt_text import alt_text
from demo.captioner.noise import noisy_priors
from demo.captioner.rows import PROMPT
from demo.encodings import jpeg
from demo.scene import render, scene_size
from demo.split import Split, seeds
from demo.weights import make_weights
from experts.base import Prior
from schemas.tables import SELECT
from stages.base import ShardInput, ShardMemory, shard_name
from stages.caption_section import CaptionSection
from stages.priors import DecidedPriors

EXPERTS = ("closed_set", "open_set", "tags", "ocr", "depth")
MAX_TOKENS = 200
_IMAGE_TOKENS = 100
"""160 px in patches of 16, as the demo's preset says."""


class GivenPriors(DecidedPriors):
    """Priors that were decided already."""

    def __init__(self) -> None:
        self.experts = EXPERTS
        self.tables = tuple(f"perceive.{name}" for name in EXPERTS)

    def decisions(self) -> dict[str, dict[str, Any]]:
        return {}

    def of(self, measured: dict[str, Prior]) -> dict[str, Prior]:
        return measured


class SceneImages:
    """ImageSource whose offsets are row numbers."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self._images = images

    def read(self, shard: str, offset: int, size: int) -> bytes:
        return self._images[offset]


class SceneRows:
    """Rows of rendered scenes.

    Args:
        first: number of the split's first scene.
    """

    def __init__(self, count: int, split: Split = "test", first: int = 0) -> None:
        self.images: list[bytes] = []
        self.select: list[dict[str, Any]] = []
        self.priors: dict[str, list[dict[str, Any]]] = {name: [] for name in EXPERTS}
        for seed in seeds(split, count, first):
            self._add(seed)

    def shard(self, scratch: Path, rows: range | None = None, memory: ShardMemory | None = None) -> ShardInput:
        """A shard of these rows, or of all."""
        chosen = rows if rows is not None else range(len(self.images))
        tables = {
            f"perceive.{name}": pa.Table.from_pylist([priors[i] for i in chosen])
            for name, priors in self.priors.items()
        }
        tables["select"] = pa.Table.from_pylist([self.select[i] for i in chosen], schema=SELECT)
        return ShardInput(shard_name(chosen.start), tables, SceneImages(self.images), scratch, memory)

    def _add(self, seed: int) -> None:
        scene = render(seed, scene_size(seed))
        image, uid = jpeg(scene.image), f"{seed:032x}"
        self.select.append(
            dict.fromkeys(SELECT.names)
            | {"uid": uid, "url": f"https://scene-world.test/{seed}.jpg", "alt_text": alt_text(scene.truth).text}
            | {"sha256": hashlib.sha256(image).hexdigest(), "format": "jpeg", "orientation": 1}
            | {"width": scene.truth.width, "height": scene.truth.height, "cluster": 0, "rank": 0}
            | {"centroid_cosine": 1.0, "image_shard": "00000", "image_offset": len(self.images)}
            | {"image_bytes": len(image)}
        )
        self.images.append(image)
        for name, prior in noisy_priors(scene.truth, random.Random(seed)).items():
            self.priors[name].append({"uid": uid, **prior})


def section(model: Path, engine: dict[str, Any] | None = None, **settings: Any) -> CaptionSection:
    """The demo preset's way to caption, at many sequences at once and with the prefix cache."""
    small = {"model": str(model), "dtype": "float32", "max_model_len": 1024, "kv_cache_bytes": 256 << 20}
    values = {
        "engine": small | (engine or {}),
        "prompt": PROMPT.model_dump(),
        "budget": {"image_tokens": _IMAGE_TOKENS},
        "max_tokens": MAX_TOKENS,
    }
    return CaptionSection.model_validate(values | settings)


def captioner(folder: Path) -> Path:
    """The demo's captioner, made whole in a folder."""
    return Path(make_weights(folder)["captioner"])
