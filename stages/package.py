"""Captioned rows to one WebDataset shard: `<uid>.jpg`, `<uid>.txt` and `<uid>.json`, adjacent, in row order.

The same input gives the same bytes. Two choices are made for readers that infer a schema from the first few samples
(`datasets` takes five, then refuses or silently empties what differs): every image is called `.jpg`, whatever its
format, because all decoders go by content and the true format is in the JSON; and what varies in shape, `priors`,
`findings`, `scores` and `structured` (an answer to `caption.structured`, else empty), is JSON text inside the JSON, as
img2dataset does with EXIF.
"""

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pydantic import Field

from schemas.section import StageSection
from schemas.tables import PACKAGE, SCORE_COLUMNS
from stages.base import ImageSource, MapStage, ShardInput, ShardOutput, align
from stages.caption_figures import caption_metrics
from stages.priors import DecidedPriors
from stages.tar import DeterministicTar

IMAGE_EXTENSION = "jpg"
DECIMALS = 6  # float32 carries seven significant digits; scores and fractions are below 1


class PackageSection(StageSection):
    """What goes into a sample beside image, caption and metadata."""

    depth_maps: bool = Field(
        False, description="add the depth expert's 16-bit PNG as `<uid>.depth.png` where it has one; large"
    )


class PackageStage(MapStage):
    """Writes the shard's tar and the index of its image members.

    Args:
        config: the section.
        priors: what the experts that are on say.
        provenance: what made the sample, copied into every JSON: model identities by stage name, and under `prompt` and
            `engine` the prompt's version and the engine's identity. Called once, where it is needed.
    """

    name = "package"
    version = 3
    schema = PACKAGE
    rows_from = "caption"
    config: PackageSection

    def __init__(self, config: PackageSection, priors: DecidedPriors, provenance: Callable[[], dict[str, str]]) -> None:
        super().__init__(config)
        self._priors = priors
        self._provenance = provenance
        self.also_reads = ("select", *priors.tables)

    def decisions(self) -> dict[str, dict[str, Any]]:
        return self._priors.decisions()

    def models(self) -> dict[str, str]:
        return self._provenance()

    def process(self, shard: ShardInput) -> ShardOutput:
        """Every caption becomes a sample; nothing stops here.

        Raises:
            OSError: image bytes in the store are not those that were downloaded.
        """
        captions = shard.tables["caption"]
        uids = captions.column("uid").to_pylist()
        selected = align(shard.tables["select"], uids).to_pylist()
        priors = {e: align(shard.tables[f"perceive.{e}"], uids).to_pylist() for e in self._priors.experts}
        path = shard.scratch / f"{shard.shard}.tar"
        rows = []
        with path.open("wb") as raw, DeterministicTar(raw) as tar:
            for i, (caption, image) in enumerate(zip(captions.to_pylist(), selected, strict=True)):
                looked = self._priors.of({expert: table[i] for expert, table in priors.items()})
                rows.append(self._write_sample(tar, shard.images, caption, image, looked))
        return ShardOutput(
            rows=pa.Table.from_pylist(rows, schema=PACKAGE),
            files={"dataset": path},
            metrics={
                "bytes": float(path.stat().st_size),
                **caption_metrics(uids, captions.column("caption").to_pylist()),
            },
        )

    def _write_sample(
        self,
        tar: DeterministicTar,
        images: ImageSource,
        caption: dict[str, Any],
        image: dict[str, Any],
        priors: dict[str, dict[str, Any]],
    ) -> dict[str, Any]:
        uid = image["uid"]
        data = images.read(image["image_shard"], image["image_offset"], image["image_bytes"])
        if hashlib.sha256(data).hexdigest() != image["sha256"]:
            raise OSError(
                f"The stored image of {uid} (download shard {image['image_shard']}) is not what was downloaded: "
                "its sha256 differs. `densefusion verify` names what is damaged."
            )
        member = f"{uid}.{IMAGE_EXTENSION}"
        offset = tar.add(member, data)
        tar.add(f"{uid}.txt", caption["caption"].encode())
        tar.add(f"{uid}.json", canonical_json(self._metadata(caption, image, priors)).encode())
        if self.config.depth_maps and (depth := priors.get("depth", {}).get("disparity_png")):
            tar.add(f"{uid}.depth.png", depth)
        return {
            **{name: image[name] for name in ("uid", "url", "format", "width", "height", "sha256", "image_bytes")},
            "caption": caption["caption"],
            "image_member": member,
            "image_offset": offset,
        }

    def _metadata(
        self, caption: dict[str, Any], image: dict[str, Any], priors: dict[str, dict[str, Any]]
    ) -> dict[str, Any]:
        seen = {
            expert: {k: v for k, v in row.items() if k != "uid" and not isinstance(v, bytes)}
            for expert, row in priors.items()
        }
        return {
            **{name: image[name] for name in ("uid", "url", "sha256", "format", "width", "height", "cluster")},
            "alt_text": image["alt_text"] or "",
            "scores": canonical_json({name: image[column] for name, column in SCORE_COLUMNS.items()}),
            "priors": canonical_json(seen),
            "findings": canonical_json(caption["findings"]),
            "repaired": caption["repaired"],
            "structured": caption["structured"] or "",
            "models": {k: v for k, v in self.identity.items() if k not in ("prompt", "engine")},
            "prompt_version": self.identity.get("prompt", ""),
            "engine": self.identity.get("engine", ""),
        }


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces, six decimals, and null for what is not a finite number."""
    return json.dumps(_rounded(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return value
