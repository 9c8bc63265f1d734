"""Shards as `package` gets them: real photographs, tables of the contracts' schemas."""

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from skimage import data as photographs

from schemas import tables
from schemas.identity import file_sha256
from stages.base import ShardInput
from stages.dataset import PackagedShard
from stages.package import PackageSection, PackageStage
from tests.fakes.looking import looking
from tests.photographs import encoded

EXPERTS = ("tags", "closed_set", "ocr", "depth", "florence")
PROVENANCE = {"embed": "folder:abc", "caption": "org/llava@1", "prompt": "densefusion-1", "engine": "vllm 0.32"}
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "camera", "rocket")
_FORMATS = ("jpeg", "png", "webp")


@dataclass
class MemoryImages:
    """The `images` objects of a store, in memory."""

    objects: dict[str, bytes]

    def read(self, shard: str, offset: int, size: int) -> bytes:
        return self.objects[shard][offset : offset + size]


@cache
def photograph(index: int) -> tuple[str, bytes, int, int]:
    """(format, bytes, width, height) of a real photograph, small; formats alternate."""
    image = Image.fromarray(getattr(photographs, _PHOTOGRAPHS[index % len(_PHOTOGRAPHS)])())
    image.thumbnail((160 + index, 160 + index))
    form = _FORMATS[index % len(_FORMATS)]
    return form, encoded(image, form), image.width, image.height


def uid_of(index: int) -> str:
    return hashlib.md5(str(index).encode()).hexdigest()


def shard_input(
    scratch: Path, shard: str = "00000", rows: int = 6, first: int = 0, overrides: dict[str, Any] | None = None
) -> ShardInput:
    """One shard of `rows` captioned photographs; the early ones have no alt text and empty priors, as real rows may."""
    select, captions, images = [], [], b""
    priors: dict[str, list[dict[str, Any]]] = {e: [] for e in EXPERTS}
    for i in range(first, first + rows):
        form, content, width, height = photograph(i)
        uid, late = uid_of(i), i - first >= 5
        select.append(
            dict.fromkeys(tables.SELECT.names)
            | {"uid": uid, "url": f"https://example.org/{i}.jpg", "alt_text": "a <b>photo</b>" if late else None}
            | {"sha256": hashlib.sha256(content).hexdigest(), "format": form, "width": width, "height": height}
            | {"orientation": 1, "cluster": i % 2, "centroid_cosine": 0.5, "rank": 0, "image_shard": "00007"}
            | {"image_offset": len(images), "image_bytes": len(content)}
        )
        images += content
        captions.append(
            {"uid": uid, "caption": f"Photograph {i}, sehr schön 图.", "repaired": False, "finish_reason": "stop"}
            | {"findings": [{"kind": "ocr", "detail": "“x”"}] if late else []}
            | {"prompt_tokens": 10, "cached_tokens": 5, "completion_tokens": 7}
        )
        box = {"label": "cat", "score": 0.9, "x1": 0.1, "y1": 0.2, "x2": 0.3, "y2": 0.4, "anchor": 0}
        line = {"text": "STOP", "score": 0.8, "polygon": [0.1, 0.1, 0.2, 0.1, 0.2, 0.2, 0.1, 0.2]}
        png = io.BytesIO()
        Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000).save(png, "png")
        priors["tags"].append(
            {"uid": uid, "tags": [{"tag": "cat", "score": 0.7, "threshold": None}] if late else [], "error": None}
        )
        priors["closed_set"].append({"uid": uid, "boxes": [box] if late else [], "error": None})
        priors["ocr"].append({"uid": uid, "lines": [line] if late else [], "error": None if late else "timeout"})
        priors["depth"].append(
            {"uid": uid, "disparity_png": png.getvalue(), "disparity_min": 0.5, "disparity_max": 9.25}
            | {"objects": [], "error": None}
        )
        priors["florence"].append(
            {"uid": uid, "caption": "a cat", "lines": [], "regions": [box], "phrases": []} | {"error": None}
        )
    schemas = {
        "tags": tables.TAGS_PRIOR,
        "closed_set": tables.BOXES_PRIOR,
        "ocr": tables.OCR_PRIOR,
        "depth": tables.DEPTH_PRIOR,
        "florence": tables.FLORENCE_PRIOR,
    }
    inputs = {
        "caption": pa.Table.from_pylist(captions, schema=tables.CAPTION),
        # Other tables may come in any order.
        "select": pa.Table.from_pylist(select[::-1], schema=tables.SELECT),
        **{f"perceive.{e}": pa.Table.from_pylist(rows[::-1], schema=schemas[e]) for e, rows in priors.items()},
        **(overrides or {}),
    }
    scratch.mkdir(parents=True, exist_ok=True)
    return ShardInput(shard, inputs, MemoryImages({"00007": images}), scratch)


def package_stage(**config: Any) -> PackageStage:
    return PackageStage(PackageSection(**config), looking(*EXPERTS), lambda: PROVENANCE)


def packaged(root: Path, shards: int = 2, rows: int = 6) -> list[PackagedShard]:
    """Shards as `package` commits them, each with a tar of its own under `root`."""
    made = []
    for k in range(shards):
        output = package_stage().process(shard_input(root / f"scratch-{k}", f"{k:05d}", rows, first=k * rows))
        tar = output.files["dataset"]
        made.append(PackagedShard(f"{k:05d}", tar, file_sha256(tar), tar.stat().st_size, output.rows))
    return made


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path in it."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
