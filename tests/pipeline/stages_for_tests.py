"""Small real stages, so that the store and the runner are tested without weights."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.storage import LocalStorage
from pipeline.store import Store
from pipeline.work import Work
from schemas.ledger import Drop, Reason
from schemas.section import StageSection
from stages.base import GatherInput, GatherStage, MapStage, ShardInput, ShardOutput, shard_name

ROWS = pa.schema(
    [pa.field("uid", pa.string(), False), pa.field("url", pa.string(), False), pa.field("n", pa.int64(), False)]
)


class NumbersSection(StageSection):
    count: int = 10
    shard_rows: int = 4


class SquareSection(StageSection):
    add: int = 0


class Numbers(GatherStage):
    """Makes rows from nothing."""

    name, version, schema, rows_from = "ingest", 1, ROWS, None
    config: NumbersSection

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        size = self.config.shard_rows
        for index, start in enumerate(range(0, self.config.count, size)):
            numbers = list(range(start, min(start + size, self.config.count)))
            rows = {"uid": [f"{n:032x}" for n in numbers], "url": [f"http://x/{n}" for n in numbers], "n": numbers}
            yield shard_name(index), ShardOutput(pa.table(rows, schema=ROWS))


class Squares(MapStage):
    """Squares the even numbers, drops the odd ones."""

    name, version, schema, rows_from = "download", 1, ROWS, "ingest"
    config: SquareSection
    opened = 0
    fail_times = 0
    seen: list[str]

    def open(self) -> None:
        self.opened += 1

    def process(self, shard: ShardInput) -> ShardOutput:
        if self.fail_times:
            self.fail_times -= 1
            raise OSError("the disk is tired")
        rows = shard.tables["ingest"].to_pylist()
        even = [{**row, "n": row["n"] ** 2 + self.config.add} for row in rows if row["n"] % 2 == 0]
        drops = [Drop(row["uid"], row["url"], Reason.DECODE, "odd") for row in rows if row["n"] % 2]
        note = shard.scratch / "images.tar"
        note.write_bytes(shard.shard.encode())
        return ShardOutput(pa.Table.from_pylist(even, ROWS), drops, {"images": note}, {"squared": len(even)})


class Total(GatherStage):
    """Sees all the squares and keeps them."""

    name, version, schema, rows_from = "cluster", 1, ROWS, "download"

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        for shard in inputs.shards("download"):
            yield shard, ShardOutput(inputs.table("download", shard))


def store_at(folder: Path) -> Store:
    return Store(LocalStorage(folder))


def work_on(store: Store, stage: MapStage | GatherStage, **options: object) -> Work:
    return Work(
        store, stage, session=str(options.pop("session", "s")), retries=int(str(options.pop("retries", 0))), **options
    )  # type: ignore[arg-type]
