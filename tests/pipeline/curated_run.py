"""The curation stages over planted vectors, in a run directory of its own; a process that tests can kill.

python -m tests.pipeline.curated_run RUN WORKERS [KEY=VALUE ...]
"""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from benchmarks.curation.planted import topics
from cluster.session import connect
from pipeline.spread import RaySpread
from pipeline.storage import LocalStorage
from pipeline.store import Store
from pipeline.work import Work
from schemas.section import Resources, StageSection, Workers
from schemas.tables import DOWNLOAD, EMBED, INGEST
from stages.base import GatherInput, GatherStage, ShardOutput, shard_name
from stages.cluster import ClusterSection, ClusterStage
from stages.dedup import DedupSection, DedupStage
from stages.select import SelectSection, SelectStage

ROWS, WIDTH, SEED = 3000, 48, 5
SETTINGS = {
    "cluster": {"k": 24, "iterations": 6},
    "dedup": {"epsilon": 0.05, "hamming": 2},
    "select": {"per_cluster": 30, "shard_rows": 100},
}


class Given(GatherStage):
    """Tables that are simply there, dealt to shards of `shard_rows`."""

    version = 1
    rows_from = None

    def __init__(self, name: str, table: pa.Table, schema: pa.Schema, shard_rows: int) -> None:
        super().__init__(StageSection())
        self.name, self.schema = name, schema
        self._table, self._rows = table, shard_rows

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        for number, start in enumerate(range(0, len(self._table), self._rows)):
            yield shard_name(number), ShardOutput(self._table.slice(start, self._rows))


def given_tables() -> dict[str, tuple[pa.Table, pa.Schema]]:
    """What ingest, download and embed would have committed."""
    vectors = topics(ROWS, SEED, WIDTH).vectors
    rng = np.random.default_rng(SEED)
    hashes = rng.integers(0, 2**63, ROWS, np.uint64)
    hashes[1::50] = hashes[::50] ^ np.uint64(1)
    uids = [f"{n:032x}" for n in rng.permutation(ROWS)]
    urls = [f"https://host{n % 17}.test/{n}.jpg" for n in range(ROWS)]
    stated = [
        {"uid": u, "url": url, "source": "s", "source_row": n}
        for n, (u, url) in enumerate(zip(uids, urls, strict=True))
    ]
    image = {"format": "jpeg", "width": 640, "height": 480, "orientation": 1, "image_bytes": 1}
    images = [
        {"uid": u, "url": url, "sha256": f"{n // 2 if n % 40 == 1 else n:064x}", "phash": int(hashes[n])}
        | {"image_offset": n}
        | image
        for n, (u, url) in enumerate(zip(uids, urls, strict=True))
    ]
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), WIDTH)
    embedded = pa.schema([EMBED.field("uid"), EMBED.field("embedding").with_type(embedding.type)])
    return {
        "ingest": (pa.Table.from_pylist(stated, schema=INGEST), INGEST),
        "download": (pa.Table.from_pylist(images, schema=DOWNLOAD), DOWNLOAD),
        "embed": (pa.table([pa.array(uids), embedding], schema=embedded), EMBED),
    }


def curate(run: Path, workers: int, overrides: list[str], shard_rows: int = 700) -> None:
    """Whatever of it is not done yet."""
    store = Store(LocalStorage(run))
    asked = Resources(cpus=0.5, workers=Workers(min=1, max=workers))
    settings = {name: dict(section) for name, section in SETTINGS.items()}
    for override in overrides:
        key, value = override.split("=", 1)
        stage, field = key.split(".")
        settings[stage][field] = yaml.safe_load(value)
    stages: list[GatherStage] = [Given(n, t, s, shard_rows) for n, (t, s) in given_tables().items()]
    stages += [
        ClusterStage(ClusterSection(**settings["cluster"], resources=asked)),
        DedupStage(DedupSection(**settings["dedup"], resources=asked)),
        SelectStage(SelectSection(**settings["select"], resources=asked)),
    ]
    for stage in stages:
        spread = RaySpread(store.storage.location, asked, patience=60)
        assert Work(store, stage, session="s", retries=0, spread=spread).run("all") == "done", store.failures(
            stage.name
        )


def committed(run: Path) -> dict[str, dict[str, str]]:
    """sha256 of every object of the three stages, by stage, kind and shard."""
    store = Store(LocalStorage(run))
    found = {}
    for stage in SETTINGS:
        record = store.commit(stage, "all")
        assert record is not None
        found[stage] = {f"{item.kind} {item.shard}": item.sha256 for item in record.objects}
    return found


def chosen(run: Path) -> list[tuple[str, int, int]]:
    """uid, cluster and rank of every row that is selected, by uid."""
    store = Store(LocalStorage(run))
    tables = [store.table("select", shard, ["uid", "cluster", "rank"]) for shard in store.shards("select")]
    return sorted(tuple(row.values()) for row in pa.concat_tables(tables).to_pylist())


if __name__ == "__main__":
    workers = int(sys.argv[2])
    # One worker is this process itself.
    with connect(num_cpus=4, num_gpus=0) if workers > 1 else nullcontext():
        curate(Path(sys.argv[1]), workers, sys.argv[3:])
