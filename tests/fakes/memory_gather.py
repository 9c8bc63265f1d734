"""A GatherInput over tables in memory, and the row invariant that every stage keeps."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from schemas.tables import check_table
from stages.base import A, GatherInput, GatherStage, R, ShardOutput


class MemoryGather:
    """`stages[stage][shard]` is a table, `files[stage][shard][kind]` a file."""

    def __init__(
        self,
        scratch: Path,
        stages: dict[str, dict[str, pa.Table]],
        files: dict[str, dict[str, dict[str, Path]]] | None = None,
    ) -> None:
        self.scratch = scratch
        self.kept = scratch / "kept"
        self.kept.mkdir(exist_ok=True)
        self._stages = stages
        self._files = files or {}

    def shards(self, stage: str) -> list[str]:
        return sorted(self._stages[stage])

    def table(self, stage: str, shard: str, columns: list[str] | None = None) -> pa.Table:
        table = self._stages[stage][shard]
        return table.select(columns) if columns else table

    def file(self, stage: str, shard: str, kind: str) -> Path:
        return self._files[stage][shard][kind]

    def spread(self, work: Callable[[GatherInput, A], R], items: Sequence[A]) -> Iterator[R]:
        return (work(self, item) for item in items)


def run_gather(stage: GatherStage, inputs: MemoryGather) -> dict[str, ShardOutput]:
    """All outputs by shard; their tables keep the contract, their names are in order, no uid ends twice."""
    outputs = dict(stage.process(inputs))
    assert list(outputs) == sorted(outputs)
    for shard, output in outputs.items():
        check_table(output.rows, stage.schema, f"{stage.name} {shard}")
    ends = [uid for o in outputs.values() for uid in o.rows.column("uid").to_pylist() + [d.uid for d in o.drops]]
    assert len(ends) == len(set(ends))
    if stage.rows_from:
        came = [u for s in inputs.shards(stage.rows_from) for u in inputs.table(stage.rows_from, s)["uid"].to_pylist()]
        assert sorted(ends) == sorted(came)
    return outputs
