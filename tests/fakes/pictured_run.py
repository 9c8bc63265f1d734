"""A run whose vectors and pictures are known: committed as if its stages had made it, up to `cluster` or to `dedup`."""

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.config import Config, load_config, save_run
from pipeline.fingerprint import digest
from pipeline.graph import build_stages
from pipeline.identities import IDENTITIES_FILE, recorded_stages
from pipeline.storage import LocalStorage
from pipeline.store import Store
from pipeline.work import Work
from schemas.commit import CommitRecord, DataObject, Worker
from schemas.tables import CLUSTER, DEDUP, DOWNLOAD, DUPLICATES, EMBED, INGEST
from stages.base import shard_name

WIDTH, CLUSTERS, EPSILON = 16, 6, 0.05


@dataclass(frozen=True)
class Pictured:
    """A run directory and what lies in it; rows in order of uid, copies beside what they are copies of.

    Attributes:
        vectors: float32 unit vectors of (n, WIDTH), as float16 holds them.
        colours: of each row's one-coloured picture, uint8 of (n, 3).
        duplicates: rows of the table that `dedup` committed.
    """

    folder: Path
    config: Config
    uids: list[str]
    clusters: np.ndarray
    cosines: np.ndarray
    vectors: np.ndarray
    colours: np.ndarray
    duplicates: list[dict[str, object]]

    @property
    def store(self) -> Store:
        return Store(LocalStorage(self.folder))


def pictured_run(folder: Path, rows: int = 120, shard_rows: int = 50, deduplicated: bool = True) -> Pictured:
    """Six clusters; every third row is a near copy of the row before it, a few are copies to the byte or to the eye."""
    config = load_config("demo", ["world=null", "ingest.sources=[given]", f"dedup.epsilon={EPSILON}"], str(folder))
    save_run(str(folder), config)
    rng = np.random.default_rng(3)
    centroids = _unit(rng.normal(size=(CLUSTERS, WIDTH)))
    clusters = np.sort(rng.integers(0, CLUSTERS, rows))
    vectors = _unit(centroids[clusters] + 0.25 * rng.normal(size=(rows, WIDTH)))
    copies = np.flatnonzero((np.arange(rows) % 3 == 2) & (np.roll(clusters, 1) == clusters))
    vectors[copies] = _unit(
        vectors[copies - 1] + rng.uniform(0.005, 0.15, (len(copies), 1)) * rng.normal(size=(len(copies), WIDTH))
    )
    stored = vectors.astype(np.float16)
    unit = _unit(stored.astype(np.float32))
    cosines = np.einsum("ij,ij->i", unit, centroids[clusters]).astype(np.float32)
    colours = rng.integers(0, 256, (rows, 3)).astype(np.uint8)
    phash = rng.integers(0, 2**63, rows).astype(np.uint64)
    phash[copies[0]] = phash[copies[0] - 1] ^ np.uint64(0b11)
    sha256 = [f"{n:064x}" for n in range(rows)]
    sha256[copies[1]] = sha256[copies[1] - 1]
    uids = [f"{n:032x}" for n in range(rows)]
    run = Pictured(folder, config, uids, clusters, cosines, unit, colours, [])
    deal = [slice(start, start + shard_rows) for start in range(0, rows, shard_rows)]
    commit = _Committer(run)
    urls = [f"https://pictures.test/{n}" for n in range(rows)]
    stated = pa.table({"uid": uids, "url": urls, "source": ["s"] * rows, "source_row": range(rows)})
    pictures = [_picture(colour) for colour in colours]
    offsets = np.concatenate([np.cumsum([0, *map(len, pictures[part])])[:-1] for part in deal])
    image = pa.table(
        {
            "uid": uids,
            "url": urls,
            "sha256": sha256,
            "format": ["png"] * rows,
            "width": [48] * rows,
            "height": [32] * rows,
            "orientation": [1] * rows,
            "phash": phash,
            "image_offset": offsets,
            "image_bytes": [len(p) for p in pictures],
        }
    )
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), WIDTH)
    near = [[(c + i) % CLUSTERS for i in range(1, 4)] for c in clusters.tolist()]
    clustered = pa.table(
        {
            "uid": uids,
            "cluster": clusters,
            "centroid_cosine": cosines,
            "near_clusters": near,
            "near_cosines": [[0.0] * 3] * rows,
        }
    )
    commit.tables("ingest", _fit(stated, INGEST), deal)
    commit.tables("download", _fit(image, DOWNLOAD), deal, {"images": [b"".join(pictures[part]) for part in deal]})
    commit.tables(
        "embed",
        pa.table(
            [pa.array(uids), embedding],
            schema=pa.schema([EMBED.field("uid"), EMBED.field("embedding").with_type(embedding.type)]),
        ),
        deal,
    )
    commit.tables("cluster", _fit(clustered, CLUSTER), deal)
    if deduplicated:
        found = greedy(run, set(copies[:2].tolist()))
        found[:0] = [_row(uids, copies[0], "perceptual", hamming=2), _row(uids, copies[1], "exact")]
        run.duplicates.extend(found)
        gone = {row["uid"] for row in found}
        kept = _fit(clustered, DEDUP).filter(pa.array([uid not in gone for uid in uids]))
        commit.dedup(kept, pa.Table.from_pylist(found, schema=DUPLICATES), [uids[part] for part in deal])
    return run


def greedy(run: Pictured, before: set[int]) -> list[dict[str, object]]:
    """The oracle: rows in order of their cosine to the centroid, compared with every kept one of their cluster."""
    kept: list[int] = []
    found = []
    for row in sorted(set(range(len(run.uids))) - before, key=lambda r: (run.cosines[r], run.uids[r])):
        for other in [k for k in kept if run.clusters[k] == run.clusters[row]]:
            cosine = float(run.vectors[row].astype(np.float64) @ run.vectors[other].astype(np.float64))
            if cosine > 1 - EPSILON:
                uid, by = run.uids[row], run.uids[other]
                found.append({"uid": uid, "kept_uid": by, "group": by, "kind": "semantic", "cosine": cosine})
                break
        else:
            kept.append(row)
    return found


class _Committer:
    """Publishes what it is given under the fingerprints that the stages would have."""

    def __init__(self, run: Pictured) -> None:
        self.store = run.store
        stages = build_stages(run.config)
        given = {stage.name: {"model": "given"} for stage in stages}
        self.store.storage.write(IDENTITIES_FILE, json.dumps(given).encode())
        self._stages = {stage.name: stage for stage in recorded_stages(run.config, self.store.storage)}

    def tables(
        self, stage: str, table: pa.Table, deal: list[slice], files: dict[str, list[bytes]] | None = None
    ) -> None:
        per_shard = [table.slice(part.start, part.stop - part.start) for part in deal]
        self._commit(stage, per_shard, files or {})

    def dedup(self, kept: pa.Table, duplicates: pa.Table, uids: list[list[str]]) -> None:
        def of(table: pa.Table, shard: list[str]) -> pa.Table:
            return table.filter(pa.array([uid in shard for uid in table.column("uid").to_pylist()]))

        files = []
        for shard in uids:
            raw = io.BytesIO()
            pq.write_table(of(duplicates, shard), raw)
            files.append(raw.getvalue())
        self._commit("dedup", [of(kept, shard) for shard in uids], {"duplicates": files})

    def _commit(self, stage: str, tables: list[pa.Table], files: dict[str, list[bytes]]) -> None:
        gathers = stage not in ("download", "embed")
        objects: list[list[DataObject]] = []
        for number, table in enumerate(tables):
            shard, scratch = shard_name(number), self.store.storage.scratch("given")
            items = [self.store.put_rows(stage, shard, "a", table, scratch)]
            for kind, contents in files.items():
                path = scratch / (f"{kind}.parquet" if kind == "duplicates" else f"{kind}.tar")
                path.write_bytes(contents[number])
                items.append(self.store.put_file(stage, shard, "a", kind, path))
            objects.append(items)
        by_shard = {shard_name(number): items for number, items in enumerate(objects)}
        named = {"all": [item for items in objects for item in items]} if gathers else by_shard
        for shard, items in named.items():
            components = Work(self.store, self._stages[stage], session="s", retries=0).components(shard)
            rows = sum(item.rows or 0 for item in items)
            worker = Worker(host="h", pid=1, device="cpu")
            self.store.publish(
                CommitRecord(
                    stage=stage,
                    shard=shard,
                    attempt="a",
                    fingerprint=digest(components),
                    components=components,
                    objects=items,
                    ledger=None,
                    rows_in=rows,
                    rows_out=rows,
                    dropped={},
                    worker=worker,
                    started=time.time(),
                    seconds=1,
                    peak_rss_bytes=1,
                )
            )


def _row(uids: list[str], row: int, kind: str, **more: int) -> dict[str, object]:
    return {"uid": uids[row], "kept_uid": uids[row - 1], "group": uids[row - 1], "kind": kind, **more}


def _fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The schema's columns, nulls where the table has none."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _picture(colour: np.ndarray) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", (48, 32), tuple(colour.tolist())).save(raw, "png")
    return raw.getvalue()


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
