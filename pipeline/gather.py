"""What a gather stage sees: GatherInput over the store. Knows nothing of Ray."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.store import Store
from stages.base import A, GatherInput, R


class Spread(Protocol):
    """Has work done for items, wherever; results in the order of the items."""

    def __call__(
        self, reader: "GatherReader", work: Callable[[GatherInput, A], R], items: Sequence[A]
    ) -> Iterator[R]: ...


def done_here(reader: "GatherReader", work: Callable[[GatherInput, A], R], items: Sequence[A]) -> Iterator[R]:
    """Item after item, in this process."""
    return (work(reader, item) for item in items)


class GatherReader:
    """GatherInput over the store.

    Args:
        spread: who does what the stage spreads.
    """

    def __init__(self, store: Store, scratch: Path, kept: Path, spread: Spread = done_here) -> None:
        self.store = store
        self.scratch = scratch
        self.kept = kept
        self._spread = spread

    def shards(self, stage: str) -> list[str]:
        return self.store.shards(stage)

    def table(self, stage: str, shard: str, columns: list[str] | None = None) -> pa.Table:
        return self.store.table(stage, shard, columns)

    def file(self, stage: str, shard: str, kind: str) -> Path:
        return self.store.storage.local(self.store.record_of(stage, shard).object(kind, shard).key)

    def spread(self, work: Callable[[GatherInput, A], R], items: Sequence[A]) -> Iterator[R]:
        return self._spread(self, work, items)
