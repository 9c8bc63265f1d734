"""The store: attempts write objects under names of their own, a commit record makes them count.

    RUN/<stage>/data/<shard>.<attempt>.*        data objects; not trusted by themselves
    RUN/<stage>/ledger/<shard>.<attempt>.parquet  rows that stopped here, named by the commit
    RUN/<stage>/commits/<shard>.json            the truth
    RUN/<stage>/failures/<shard>.json           given up after its retries

Promised: a reader that goes through commit records sees every row once, whatever was killed when. Not promised:
that an attempt's work is kept when it dies before its commit, or that objects nobody names go by themselves (`gc`).
"""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.fingerprint import digest
from pipeline.storage import Storage
from schemas.commit import CommitRecord, DataObject, FailureRecord
from schemas.errors import ContractError
from schemas.ledger import ledger_table
from schemas.tables import check_table
from stages.base import ShardOutput

GATHER = "all"


class Store:
    """Commit records, failures, tables and ledgers of one run directory."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    # commit records

    def commit(self, stage: str, shard: str) -> CommitRecord | None:
        try:
            return CommitRecord.model_validate_json(self.storage.read(_commit_key(stage, shard)))
        except FileNotFoundError:
            return None

    def committed(self, stage: str) -> list[str]:
        """Names of the shards that have a commit record, whatever its fingerprint."""
        return [Path(key).stem for key in self.storage.list(f"{stage}/commits") if key.endswith(".json")]

    def commits(self, stage: str) -> dict[str, CommitRecord]:
        found = ((shard, self.commit(stage, shard)) for shard in self.committed(stage))
        return {shard: record for shard, record in found if record is not None}

    def publish(self, record: CommitRecord) -> CommitRecord:
        """Make a record the truth; the first commit of a fingerprint wins.

        Returns:
            The record that stands: this one, or the equal one of an attempt that was faster.
        """
        key, data = _commit_key(record.stage, record.shard), record.model_dump_json(indent=1).encode()
        while not self.storage.create(key, data):
            standing = self.storage.read(key)
            other = CommitRecord.model_validate_json(standing)
            if other.fingerprint == record.fingerprint:
                return other
            if self.storage.replace(key, standing, data):
                break
        return record

    def withdraw(self, stage: str, shard: str) -> None:
        """Take back a commit, so that the shard is done again; its objects stay until `gc`."""
        self.storage.delete(_commit_key(stage, shard))

    # failures

    def failure(self, stage: str, shard: str) -> FailureRecord | None:
        try:
            return FailureRecord.model_validate_json(self.storage.read(_failure_key(stage, shard)))
        except FileNotFoundError:
            return None

    def failures(self, stage: str) -> list[FailureRecord]:
        names = [Path(key).stem for key in self.storage.list(f"{stage}/failures")]
        return [f for f in (self.failure(stage, name) for name in names) if f is not None]

    def record_failure(self, failure: FailureRecord) -> None:
        self.storage.write(_failure_key(failure.stage, failure.shard), failure.model_dump_json(indent=1).encode())

    def clear_failure(self, stage: str, shard: str) -> None:
        self.storage.delete(_failure_key(stage, shard))

    # reading, through commit records only

    def record_of(self, stage: str, shard: str) -> CommitRecord:
        """The commit that holds a shard's table: the shard's own, or the gather's one.

        Raises:
            FileNotFoundError: neither is there.
        """
        record = self.commit(stage, shard) or self.commit(stage, GATHER)
        if record is None:
            raise FileNotFoundError(f"{stage} has no commit for shard {shard}")
        return record

    def shards(self, stage: str) -> list[str]:
        """Names of the shards whose tables are committed, in order."""
        gather = self.commit(stage, GATHER)
        return gather.shards() if gather is not None else self.committed(stage)

    def table(self, stage: str, shard: str, columns: list[str] | None = None) -> pa.Table:
        return self.read_table(self.record_of(stage, shard).rows_of(shard), columns)

    def read_table(self, item: DataObject, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(io.BytesIO(self.storage.read(item.key)), columns=columns)

    def ledger(self, stage: str) -> Iterator[pa.Table]:
        """The ledger tables of a stage, shard by shard."""
        for record in self.commits(stage).values():
            if record.ledger is not None:
                yield self.read_table(record.ledger)

    def content(self, stage: str, shard: str) -> str:
        """Digest of what a shard holds: equal bytes, equal digest, whichever attempt wrote them."""
        return content_digest(self.record_of(stage, shard), shard)

    # writing, before a commit

    def put_rows(self, stage: str, shard: str, attempt: str, table: pa.Table, scratch: Path) -> DataObject:
        return self._put_table(f"{stage}/data/{shard}.{attempt}.parquet", "rows", shard, table, scratch)

    def put_ledger(self, stage: str, shard: str, attempt: str, output: list[ShardOutput], scratch: Path) -> DataObject:
        table = ledger_table(stage, [drop for part in output for drop in part.drops])
        return self._put_table(f"{stage}/ledger/{shard}.{attempt}.parquet", "ledger", shard, table, scratch)

    def put_file(self, stage: str, shard: str, attempt: str, kind: str, path: Path) -> DataObject:
        suffix = path.suffix if path.suffix != ".parquet" else f".{kind}.parquet"
        key = f"{stage}/data/{shard}.{attempt}{suffix}"
        return self._put(key, kind, shard, path, None)

    def _put_table(self, key: str, kind: str, shard: str, table: pa.Table, scratch: Path) -> DataObject:
        path = scratch / f".{kind}.parquet"
        pq.write_table(table, path, compression="zstd")
        return self._put(key, kind, shard, path, table.num_rows)

    def _put(self, key: str, kind: str, shard: str, path: Path, rows: int | None) -> DataObject:
        self.storage.upload(path, key)
        sha256, size = self.storage.sha256(key), self.storage.size(key)
        return DataObject(kind=kind, shard=shard, key=key, sha256=sha256, bytes=size, rows=rows)


class CommittedImages:
    """ImageSource over what `download` committed; remembers where each shard's images object lies."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._keys: dict[str, str] = {}

    def read(self, shard: str, offset: int, size: int) -> bytes:
        key = self._keys.get(shard)
        if key is None:
            key = self._keys[shard] = self.store.record_of("download", shard).object("images", shard).key
        return self.store.storage.read(key, offset, size)


def content_digest(record: CommitRecord, shard: str) -> str:
    return digest({item.kind: item.sha256 for item in record.objects if item.shard == shard})


def gather_digest(store: Store, stage: str) -> str:
    """Digest of everything a stage holds, over all its shards."""
    return digest({shard: store.content(stage, shard) for shard in store.shards(stage)})


def check_output(stage: str, schema: pa.Schema, outputs: dict[str, ShardOutput], uids_in: list[str] | None) -> None:
    """Hold a stage's output against its contract.

    Args:
        uids_in: the uids that came in; None for a stage that reads the outside world.

    Raises:
        ContractError: wrong columns or types, a uid twice, a row lost or invented.
    """
    seen: list[str] = []
    for shard, output in outputs.items():
        check_table(output.rows, schema, f"{stage} shard {shard}")
        seen += output.rows.column("uid").to_pylist()
        seen += [drop.uid for drop in output.drops]
    unique = set(seen)
    if len(unique) != len(seen):
        twice = next(uid for uid in seen if seen.count(uid) > 1)
        raise ContractError(f"{stage}: uid {twice} is in the output more than once")
    if uids_in is not None and unique != set(uids_in):
        lost, invented = set(uids_in) - unique, unique - set(uids_in)
        raise ContractError(
            f"{stage}: of {len(uids_in)} rows in, {len(lost)} are neither in the output nor dropped"
            f"{f' (first {min(lost)})' if lost else ''}, and {len(invented)} came from nowhere"
        )


def _commit_key(stage: str, shard: str) -> str:
    return f"{stage}/commits/{shard}.json"


def _failure_key(stage: str, shard: str) -> str:
    return f"{stage}/failures/{shard}.json"
