"""`dedup`: exact, perceptual and semantic duplicates; what stays, what goes, and because of which row."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from schemas.ledger import Drop, Reason
from schemas.section import StageSection
from schemas.tables import DEDUP, DUPLICATES
from stages.base import GatherInput, GatherStage, ShardOutput, align
from stages.curate.exact import exact_duplicates
from stages.curate.perceptual import perceptual_duplicates
from stages.curate.ranking import ranked, shuffled
from stages.curate.semantic.rules import Rule, duplicates_within
from stages.curate.vectors import Vectors, uid_array

_REASONS = {
    "exact": Reason.DUPLICATE_EXACT,
    "perceptual": Reason.DUPLICATE_PERCEPTUAL,
    "semantic": Reason.DUPLICATE_SEMANTIC,
}
_KINDS = list(_REASONS)


class DedupSection(StageSection):
    """What counts as a duplicate, and which row of a group stays."""

    exact: bool = Field(True, description="drop images whose original bytes are equal (sha256)")
    hamming: int | None = Field(
        4,
        ge=0,
        le=16,
        description="drop images whose 64-bit perceptual hashes differ in at most this many bits; null does not look. "
        "The paper has no such step. Photographs re-encoded at quality 30 or scaled to a third stay within 4 bits, "
        "different ones lie 20 and more apart (tests/stages/test_dedup_photographs.py); cropped copies are not found",
    )
    epsilon: float | None = Field(
        0.4,
        ge=0,
        le=1,
        description="within a cluster, drop rows of cosine above 1 - epsilon; null does not look. 0.4 is the paper's "
        "(DenseFusion section 3.1); SemDeDup's own range is 0.001 to 0.03",
    )
    rule: Rule = Field(
        "semdedup",
        description="semdedup compares with every earlier row, also with dropped ones, as SemDeDup's released code "
        "does; greedy compares with kept rows only, so that whatever goes has a kept row that resembles it",
    )
    keep: Literal["hard", "easy", "random", "resolution"] = Field(
        "hard",
        description="which row of a group stays: hard is the farthest from its centroid (SemDeDup's default; the paper "
        "does not say), easy the closest, random a seeded draw, resolution the one of most pixels; ties go by uid",
    )
    seed: int = Field(1234, ge=0, lt=2**31, description="of keep: random")


@dataclass
class _Rows:
    """All rows of the run, as columns; vectors stay on disk.

    Attributes:
        uid: bytes of (n,).
        cluster: int32 of (n,).
        cosine: to the row's centroid, float32 of (n,).
        sha256: bytes of (n,).
        phash: uint64 of (n,).
        pixels: int64 of (n,).
        vectors: float16 of (n, width), memory-mapped.
    """

    uid: np.ndarray
    cluster: np.ndarray
    cosine: np.ndarray
    sha256: np.ndarray
    phash: np.ndarray
    pixels: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.uid)


class _Verdict:
    """Which row suppressed which, as row numbers.

    Attributes:
        by: the suppressor of each row, -1 where the row is kept.
        kind: index into _KINDS, where suppressed.
        distance: cosine of semantic, Hamming distance of perceptual duplicates; NaN else.
    """

    def __init__(self, rows: int) -> None:
        self.by = np.full(rows, -1, np.int64)
        self.kind = np.zeros(rows, np.int8)
        self.distance = np.full(rows, np.nan, np.float32)

    def record(self, rows: np.ndarray, kind: str, by: np.ndarray, distance: np.ndarray | None = None) -> np.ndarray:
        """Take in what one search said about `rows` (`by` counts within them); returns the rows it kept."""
        gone = by >= 0
        self.by[rows[gone]] = rows[by[gone]]
        self.kind[rows[gone]] = _KINDS.index(kind)
        if distance is not None:
            self.distance[rows[gone]] = distance[gone]
        return rows[~gone]

    def groups(self, order: np.ndarray) -> np.ndarray:
        """The kept row at the end of each row's chain of suppressors, which always stand earlier in `order`."""
        root = np.arange(len(self.by))
        for row in order[self.by[order] >= 0].tolist():
            root[row] = root[self.by[row]]
        return root


class DedupStage(GatherStage):
    """Exact copies first, then perceptual ones among the rest, then semantic ones inside the clusters of what is left.

    Which rows stay depends on the rows alone, not on how they are spread over shards. Memory: about 150 bytes for every
    row, the vectors of the largest cluster as float32, and one block of cosines; the vectors of all rows lie in a
    scratch file. Each shard carries a file of kind `duplicates` (parquet, schemas.tables.DUPLICATES).
    """

    name = "dedup"
    version = 1
    schema = DEDUP
    rows_from = "cluster"
    also_reads = ("embed", "download")
    config: DedupSection

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        rows = _read(inputs)
        order = self._order(rows)
        verdict = self._search(rows, order)
        group = verdict.groups(order)
        first = 0
        for shard in inputs.shards("cluster"):
            table = inputs.table("cluster", shard)
            numbers = np.arange(first, first + table.num_rows)
            first += table.num_rows
            gone = numbers[verdict.by[numbers] >= 0]
            duplicates = _duplicates(rows, verdict, group, gone)
            path = inputs.scratch / f"{shard}.duplicates.parquet"
            pq.write_table(duplicates, path)
            urls = align(inputs.table("download", shard, ["uid", "url"]), duplicates.column("uid").to_pylist())
            drops = [
                Drop(row["uid"], url, _REASONS[row["kind"]], _sentence(row))
                for row, url in zip(duplicates.to_pylist(), urls.column("url").to_pylist(), strict=True)
            ]
            kept = table.select(self.schema.names).filter(pa.array(verdict.by[numbers] < 0))
            yield shard, ShardOutput(kept.cast(self.schema), drops, {"duplicates": path})

    def _order(self, rows: _Rows) -> np.ndarray:
        """Row numbers, those first that stay before others of their group."""
        match self.config.keep:
            case "hard":
                return ranked(rows.cosine, rows.uid)
            case "easy":
                return ranked(rows.cosine, rows.uid, descending=True)
            case "resolution":
                return ranked(rows.pixels, rows.uid, descending=True)
            case "random":
                return shuffled(rows.uid, self.config.seed)

    def _search(self, rows: _Rows, order: np.ndarray) -> _Verdict:
        config = self.config
        verdict = _Verdict(len(rows))
        live = order
        if config.exact:
            live = verdict.record(live, "exact", exact_duplicates(rows.sha256[live]))
        if config.hamming is not None:
            live = verdict.record(live, "perceptual", *perceptual_duplicates(rows.phash[live], config.hamming))
        if config.epsilon is not None:
            for members in _clusters(live, rows.cluster):
                vectors = Vectors.of(rows.vectors[members])
                verdict.record(members, "semantic", *duplicates_within(vectors, 1 - config.epsilon, config.rule))
        return verdict


def _clusters(live: np.ndarray, cluster: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of each cluster, in the order in which they stand in `live`."""
    if len(live):
        members = live[np.argsort(cluster[live], kind="stable")]
        yield from np.split(members, np.flatnonzero(np.diff(cluster[members])) + 1)


def _read(inputs: GatherInput) -> _Rows:
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("uid", "cluster", "cosine", "sha256", "phash", "pixels")
    }
    width = 1
    path = inputs.scratch / "vectors.f16"
    with path.open("wb") as f:
        for shard in inputs.shards("cluster"):
            clustered = inputs.table("cluster", shard)
            uids = clustered.column("uid").to_pylist()
            image = align(inputs.table("download", shard, ["uid", "sha256", "phash", "width", "height"]), uids)
            parts["uid"].append(uid_array(clustered))
            parts["cluster"].append(clustered.column("cluster").to_numpy())
            parts["cosine"].append(clustered.column("centroid_cosine").to_numpy())
            parts["sha256"].append(np.array(image.column("sha256").to_pylist(), "S64"))
            parts["phash"].append(image.column("phash").to_numpy())
            sides = [image.column(side).to_numpy().astype(np.int64) for side in ("width", "height")]
            parts["pixels"].append(sides[0] * sides[1])
            embedding = align(inputs.table("embed", shard, ["uid", "embedding"]), uids).column("embedding")
            width = embedding.type.list_size
            embedding.combine_chunks().flatten().to_numpy(zero_copy_only=False).tofile(f)
    columns = {name: np.concatenate(arrays) if arrays else np.empty(0) for name, arrays in parts.items()}
    return _Rows(**columns, vectors=_mapped(path, width))


def _mapped(path: Path, width: int) -> np.ndarray:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty((0, width), np.float16)
    return np.memmap(path, np.float16, "r").reshape(-1, width)


def _duplicates(rows: _Rows, verdict: _Verdict, group: np.ndarray, gone: np.ndarray) -> pa.Table:
    kinds = verdict.kind[gone]
    distance = verdict.distance[gone]
    return pa.table(
        {
            "uid": _hex(rows.uid[gone]),
            "kept_uid": _hex(rows.uid[verdict.by[gone]]),
            "group": _hex(rows.uid[group[gone]]),
            "kind": [_KINDS[kind] for kind in kinds],
            "cosine": pa.array(distance, pa.float32(), mask=kinds != _KINDS.index("semantic")),
            "hamming": pa.array(
                np.nan_to_num(distance).astype(np.int16), pa.int16(), mask=kinds != _KINDS.index("perceptual")
            ),
        },
        schema=DUPLICATES,
    )


def _hex(uids: np.ndarray) -> list[str]:
    return [uid.decode() for uid in uids.tolist()]


def _sentence(row: dict[str, str | float | None]) -> str:
    text = f"of {row['kept_uid']}"
    if row["cosine"] is not None:
        text += f", cosine {row['cosine']:.2f}"
    if row["hamming"] is not None:
        text += f", {row['hamming']} bits apart"
    return text if row["group"] == row["kept_uid"] else f"{text}; {row['group']} stays"
