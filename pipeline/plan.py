"""What would be done, and why: the shards without a commit record, or with one of another fingerprint."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.fingerprint import Change, changes, digest, stage_identity, with_inputs
from pipeline.graph import shards_come_from
from pipeline.storage import Storage
from pipeline.store import GATHER, Store, gather_digest
from pipeline.work import inputs_of
from schemas.commit import CommitRecord
from stages.base import GatherStage, Stage

NOT_DONE = "not done yet"
FAILED = "failed before"


@dataclass
class StagePlan:
    """One stage's share of the work.

    Attributes:
        shards: all shards of the stage as far as they are known (`all` for a gather).
        pending: those to be done.
        because: dotted names of the fields that make them pending, or NOT_DONE / FAILED.
        changes: the same, but for inputs, one readable line each with old and new value.
        final: False while an upstream gather is pending, because it may make other shards.
    """

    name: str
    shards: list[str]
    pending: list[str] = field(default_factory=list)
    because: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    final: bool = True

    @property
    def rerun(self) -> int:
        """Shards to be done; at least 1 where their number is not known yet."""
        return len(self.pending) if self.final else max(1, len(self.pending))

    def note(self, *because: str | Change) -> None:
        for cause in because:
            name = cause.name if isinstance(cause, Change) else cause
            if name not in self.because:
                self.because.append(name)
            if isinstance(cause, Change) and not name.startswith("inputs.") and str(cause) not in self.changes:
                self.changes.append(str(cause))


class Snapshot(Store):
    """A store that reads each commit record once: a plan looks at one moment.

    Attributes:
        current: per map stage, the shards that its gather makes now. A gather that makes fewer than before leaves
            commits of shards that are no more.
    """

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.current: dict[str, list[str]] = {}
        self._records: dict[tuple[str, str], CommitRecord | None] = {}

    def shards(self, stage: str) -> list[str]:
        found = super().shards(stage)
        return [shard for shard in found if shard in set(self.current.get(stage, found))]

    def commit(self, stage: str, shard: str) -> CommitRecord | None:
        key = (stage, shard)
        if key not in self._records:
            self._records[key] = super().commit(stage, shard)
        return self._records[key]


def plan(storage: Storage, stages: list[Stage]) -> list[StagePlan]:
    """The work of a run, stage by stage. Reads commit records only; starts nothing."""
    store = Snapshot(storage)
    plans: dict[str, StagePlan] = {}
    for stage in stages:
        source = shards_come_from(stages, stage)
        open_end = source is not None and source in plans and bool(plans[source].pending)
        item = StagePlan(stage.name, _shards(store, stage, source), final=not open_end)
        if item.shards != [GATHER]:
            store.current[stage.name] = item.shards
        _find_pending(store, stage, item, plans)
        if open_end and not item.pending:
            item.note(f"inputs.{source}" if item.shards else NOT_DONE)
        plans[stage.name] = item
    return list(plans.values())


def withdraw_leftovers(store: Store, plans: Iterable[StagePlan]) -> None:
    """Take back the commits of shards that their gather no longer makes, so that nothing counts them."""
    for item in plans:
        if item.final:
            for shard in set(store.committed(item.name)) - set(item.shards):
                store.withdraw(item.name, shard)
                store.clear_failure(item.name, shard)


def _shards(store: Store, stage: Stage, source: str | None) -> list[str]:
    if isinstance(stage, GatherStage):
        return [GATHER]
    assert source is not None
    return store.shards(source)


def _find_pending(store: Store, stage: Stage, item: StagePlan, plans: dict[str, StagePlan]) -> None:
    identity = stage_identity(stage)
    upstream = inputs_of(stage)
    for shard in item.shards:
        standing = store.commit(stage.name, shard)
        waiting = [name for name in upstream if _is_pending(plans[name], shard, isinstance(stage, GatherStage))]
        if standing is None:
            item.note(FAILED if store.failure(stage.name, shard) is not None else NOT_DONE)
        else:
            # What a pending upstream will hold is not known; what already differs here is.
            inputs = (
                standing.components["inputs"]
                if waiting
                else {name: _content(store, stage, name, shard) for name in upstream}
            )
            components = with_inputs(identity, inputs)
            if not waiting and standing.fingerprint == digest(components):
                continue
            item.note(*changes(stage.name, standing.components, components), *(f"inputs.{name}" for name in waiting))
        item.pending.append(shard)


def _is_pending(upstream: StagePlan, shard: str, whole: bool) -> bool:
    if not upstream.pending:
        return not upstream.final
    return whole or shard in upstream.pending or upstream.pending == [GATHER]


def _content(store: Store, stage: Stage, upstream: str, shard: str) -> str:
    return gather_digest(store, upstream) if isinstance(stage, GatherStage) else store.content(upstream, shard)
