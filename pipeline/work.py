"""One shard of one stage, from inputs to commit: retries, poison rows, the contract. Knows nothing of Ray."""

import json
import os
import resource
import shutil
import socket
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa

from pipeline.fingerprint import Components, digest, stage_identity, with_inputs
from pipeline.gather import GatherReader, Spread, done_here
from pipeline.memory import EarlierFiles, StageMemory
from pipeline.store import CommittedImages, Store, check_output, gather_digest
from schemas.commit import CommitRecord, DataObject, FailureRecord, Worker
from schemas.errors import ContractError, SetupError
from stages.base import GatherStage, MapStage, ShardInput, ShardOutput, Stage, align

State = Literal["done", "failed", "setup"]

DEATHS_BEFORE_ISOLATION = 2
"""A worker may die for reasons of its own; a shard that kills two in a row is looked into."""


@dataclass
class Begun:
    """What is known of an attempt before its output is."""

    shard: str
    attempt: str
    components: Components
    started: float
    scratch: Path
    retries: int


class Work:
    """Does shards of one stage in this process.

    Args:
        session: of the runner that asked; deaths are counted within one session.
        find_poison: given a shard and its uids, the uids that kill a process (`pipeline.isolate`).
        spread: who does what a gather spreads.
    """

    def __init__(
        self,
        store: Store,
        stage: Stage,
        *,
        session: str,
        retries: int,
        find_poison: Callable[[str, list[str]], list[str]] | None = None,
        spread: Spread = done_here,
    ) -> None:
        self.store = store
        self.stage = stage
        self.session = session
        self.retries = retries
        self.find_poison = find_poison
        self.spread = spread
        self.identity = stage_identity(stage)
        self.images = CommittedImages(store)
        self._earlier = EarlierFiles(store, stage.name)
        self._opened = False

    def run(self, shard: str) -> State:
        """Bring one shard (`all` for a gather) to its commit or to its failure record; a bad shard never raises."""
        components = self.components(shard)
        standing = self.store.commit(self.stage.name, shard)
        if standing is not None and standing.fingerprint == digest(components):
            return "done"
        deaths = self._deaths(shard)
        self._note_attempt(shard, deaths + 1)
        state = self._attempts(shard, components, deaths)
        self.store.storage.delete(self._journal(shard))
        return state

    def components(self, shard: str) -> Components:
        """What decides this shard's content, from the inputs as they are committed now."""
        upstream = inputs_of(self.stage)
        if isinstance(self.stage, GatherStage):
            return with_inputs(self.identity, {name: gather_digest(self.store, name) for name in upstream})
        return with_inputs(self.identity, {name: self.store.content(name, shard) for name in upstream})

    def close(self) -> None:
        if self._opened:
            self.stage.close()
            self._opened = False

    def _attempts(self, shard: str, components: Components, deaths: int) -> State:
        for retry in range(self.retries + 1):
            try:
                self._attempt(shard, components, deaths, retry)
            except Exception as error:
                setup = isinstance(error, SetupError)
                if setup or isinstance(error, ContractError) or retry == self.retries:
                    self._fail(shard, error, retry + 1, setup=setup)
                    return "setup" if setup else "failed"
            else:
                self.store.clear_failure(self.stage.name, shard)
                return "done"
        raise AssertionError("the last retry either returns or fails")

    def _attempt(self, shard: str, components: Components, deaths: int, retry: int) -> CommitRecord:
        attempt = uuid.uuid4().hex[:12]
        scratch = self.store.storage.scratch(f"{self.stage.name}.{shard}.{attempt}")
        begun = Begun(shard, attempt, components, time.time(), scratch, retry + deaths)
        try:
            if isinstance(self.stage, GatherStage):
                return self._gather(self.stage, begun)
            assert isinstance(self.stage, MapStage)
            return self._map(self.stage, begun, isolate=deaths >= DEATHS_BEFORE_ISOLATION)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _map(self, stage: MapStage, begun: Begun, *, isolate: bool) -> CommitRecord:
        given = self.shard_input(stage, begun.shard, begun.scratch)
        given.memory = StageMemory(self._earlier, begun.shard)
        assert stage.rows_from is not None
        uids = given.tables[stage.rows_from].column("uid").to_pylist()
        poison = self.find_poison(begun.shard, uids) if isolate and self.find_poison is not None else []
        self._open()
        output = process_without(stage, given, set(poison))
        check_output(stage.name, stage.schema, {begun.shard: output}, uids)
        objects = [self.store.put_rows(stage.name, begun.shard, begun.attempt, output.rows, begun.scratch)]
        objects += self._files(begun.shard, begun.attempt, output)
        record = self._publish(begun, [output], objects, len(uids))
        self.store.storage.drop_kept(stage.name, begun.shard)
        return record

    def _gather(self, stage: GatherStage, begun: Begun) -> CommitRecord:
        self._open()
        outputs: dict[str, ShardOutput] = {}
        objects: list[DataObject] = []
        # What an attempt keeps is of use to attempts at the same content only.
        kept = self.store.storage.kept(stage.name, digest(begun.components)[:16])
        for name, output in stage.process(GatherReader(self.store, begun.scratch, kept, self.spread)):
            outputs[name] = output
            objects.append(self.store.put_rows(stage.name, name, begun.attempt, output.rows, begun.scratch))
            objects += self._files(name, begun.attempt, output)
        uids = list(self._uids_of(stage.rows_from)) if stage.rows_from is not None else None
        check_output(stage.name, stage.schema, outputs, uids)
        parts = list(outputs.values())
        rows_in = len(uids) if uids is not None else sum(p.rows.num_rows + len(p.drops) for p in parts)
        record = self._publish(begun, parts, objects, rows_in)
        self.store.storage.drop_kept(stage.name)
        return record

    def shard_input(self, stage: MapStage, shard: str, scratch: Path) -> ShardInput:
        tables = {name: self.store.table(name, shard) for name in inputs_of(stage)}
        return ShardInput(shard, tables, self.images, scratch)

    def _uids_of(self, stage: str) -> Iterator[str]:
        for shard in self.store.shards(stage):
            yield from self.store.table(stage, shard, ["uid"]).column("uid").to_pylist()

    def _files(self, shard: str, attempt: str, output: ShardOutput) -> list[DataObject]:
        return [
            self.store.put_file(self.stage.name, shard, attempt, kind, path)
            for kind, path in sorted(output.files.items())
        ]

    def _publish(
        self, begun: Begun, outputs: list[ShardOutput], objects: list[DataObject], rows_in: int
    ) -> CommitRecord:
        dropped: dict[str, int] = {}
        metrics: dict[str, float] = {}
        for output in outputs:
            for drop in output.drops:
                dropped[str(drop.reason)] = dropped.get(str(drop.reason), 0) + 1
            for name, value in output.metrics.items():
                metrics[name] = metrics.get(name, 0) + value
        rows_out = sum(output.rows.num_rows for output in outputs)
        if rows_in != rows_out + sum(dropped.values()):
            raise ContractError(
                f"{self.stage.name} {begun.shard}: {rows_in} rows in, {rows_out} out, dropped {dropped}"
            )
        name, scratch = self.stage.name, begun.scratch
        ledger = self.store.put_ledger(name, begun.shard, begun.attempt, outputs, scratch) if dropped else None
        return self.store.publish(
            CommitRecord(
                stage=name,
                shard=begun.shard,
                attempt=begun.attempt,
                fingerprint=digest(begun.components),
                components=begun.components,
                objects=objects,
                ledger=ledger,
                rows_in=rows_in,
                rows_out=rows_out,
                dropped=dropped,
                worker=Worker(host=socket.gethostname(), pid=os.getpid(), device=self.stage.config.resources.device),
                started=begun.started,
                seconds=time.time() - begun.started,
                peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                retries=begun.retries,
                metrics=metrics,
            )
        )

    def _open(self) -> None:
        if not self._opened:
            self.stage.open()
            self._opened = True

    def _fail(self, shard: str, error: Exception, attempts: int, *, setup: bool) -> None:
        self.store.record_failure(
            FailureRecord(
                stage=self.stage.name,
                shard=shard,
                error=f"{error}" if setup else f"{type(error).__name__}: {error}",
                traceback="".join(traceback.format_exception(error)),
                attempts=attempts,
                setup=setup,
                time=time.time(),
            )
        )

    def _journal(self, shard: str) -> str:
        return f"{self.stage.name}/attempts/{shard}.json"

    def _deaths(self, shard: str) -> int:
        """Attempts of this session that began and never ended: their worker died."""
        try:
            note = json.loads(self.store.storage.read(self._journal(shard)))
        except FileNotFoundError:
            return 0
        return note["unfinished"] if note["session"] == self.session else 0

    def _note_attempt(self, shard: str, unfinished: int) -> None:
        note = {"session": self.session, "unfinished": unfinished}
        self.store.storage.write(self._journal(shard), json.dumps(note).encode())


def inputs_of(stage: Stage) -> list[str]:
    """The stages whose tables a stage reads."""
    return [name for name in (stage.rows_from, *stage.also_reads) if name is not None]


def without_rows(given: ShardInput, rows_from: str, uids: set[str]) -> ShardInput:
    """The same shard with some rows taken out of the table that says which rows there are."""
    rows = given.tables[rows_from]
    kept = rows.filter(pa.array([uid not in uids for uid in rows.column("uid").to_pylist()], pa.bool_()))
    return replace(given, tables={**given.tables, rows_from: kept})


def process_without(stage: MapStage, given: ShardInput, poison: set[str]) -> ShardOutput:
    """The stage's output with the poison rows quarantined, in the order of the rows that came in."""
    assert stage.rows_from is not None
    if not poison:
        return stage.process(given)
    rows = given.tables[stage.rows_from]
    uids = rows.column("uid").to_pylist()
    output = stage.process(without_rows(given, stage.rows_from, poison))
    quarantined = stage.quarantine(align(rows, [uid for uid in uids if uid in poison]))
    output.drops += quarantined.drops
    if quarantined.rows.num_rows:
        merged = pa.concat_tables([output.rows, quarantined.rows])
        present = set(merged.column("uid").to_pylist())
        output.rows = align(merged, [uid for uid in uids if uid in present])
    return output
