"""What a map stage leaves behind beside its output: ShardMemory over the store."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pipeline.store import Store
from schemas.commit import DataObject


class EarlierFiles:
    """Files that the commits of a stage named when a worker first asked; `gc`, which no runner allows beside it, is all
    that removes them."""

    def __init__(self, store: Store, stage: str) -> None:
        self.store, self.stage = store, stage

    def of(self, kind: str, first: str) -> Iterator[Path]:
        """Those of a kind, the one of shard `first` ahead of the others; what has gone meanwhile is left out."""
        for item in sorted(self._objects, key=lambda item: item.shard != first):
            if item.kind == kind:
                try:
                    yield self.store.storage.local(item.key)
                except FileNotFoundError:
                    continue

    @cached_property
    def _objects(self) -> list[DataObject]:
        return [item for record in self.store.commits(self.stage).values() for item in record.objects]


class StageMemory:
    """ShardMemory of one shard."""

    def __init__(self, earlier: EarlierFiles, shard: str) -> None:
        self._earlier, self._shard = earlier, shard

    def kept(self) -> Path:
        return self._earlier.store.storage.kept(self._earlier.stage, self._shard)

    def earlier(self, kind: str) -> Iterator[Path]:
        return self._earlier.of(kind, self._shard)

    def lasting(self) -> Path:
        return self._earlier.store.storage.lasting(self._earlier.stage)
