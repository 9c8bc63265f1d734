"""What a stage is. The runner calls `open` once per worker, then `process` once per shard, then `close`.

A stage is cheap to build (no weights, no sockets, no heavy import): the driver builds one too, to ask for its
identity. It must give the same output for the same input: resume and verification rest on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from schemas.ledger import Drop, Reason
from schemas.section import StageSection

A = TypeVar("A")
R = TypeVar("R")

POISON_DETAIL = "poison: every process that worked on this row died"


class ImageSource(Protocol):
    """Reads original image bytes out of the `images` objects that `download` committed."""

    def read(self, shard: str, offset: int, size: int) -> bytes: ...


class ShardMemory(Protocol):
    """What a map stage leaves behind beside its output, for later attempts at a shard and for whoever counts."""

    def kept(self) -> Path:
        """A folder of this shard's own that outlives an attempt which is killed, whatever the fingerprint of the next;
        removed after the commit."""

    def earlier(self, kind: str) -> Iterator[Path]:
        """Files of a kind that the stage's commits named when this worker first asked, this shard's own first."""

    def lasting(self) -> Path:
        """A folder of the stage's own that is never removed."""


@dataclass
class ShardInput:
    """One shard as a map stage sees it.

    Attributes:
        shard: name of the shard, five or more digits.
        tables: the committed rows of every stage in `rows_from` and `also_reads`, by stage name. The table of
            `rows_from` says which rows there are; others hold at least those uids, in any order.
        images: the original bytes.
        scratch: an empty folder of this attempt's own, on the run's file system where it has one; removed afterwards.
        memory: None where nothing is to be left behind: a probe, a look at one row.
    """

    shard: str
    tables: dict[str, pa.Table]
    images: ImageSource
    scratch: Path
    memory: ShardMemory | None = None


@dataclass
class ShardOutput:
    """What a stage made of one shard: every row in is in `rows` or in `drops`, once.

    Attributes:
        rows: the table, of the stage's schema.
        drops: the rows that stop here.
        files: further data objects by kind, written under `scratch` (`images`: the tar that download made).
        metrics: figures for the report (bytes, tokens, cache hits); sums over shards must make sense.
    """

    rows: pa.Table
    drops: list[Drop] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


class Stage(ABC):
    """What map and gather stages share.

    Attributes:
        name: as in the run directory and in `status`.
        version: raise it when the same config and input would now give other rows.
        schema: Arrow schema of `rows`.
        rows_from: the stage whose rows come in, or None for a stage that reads the outside world.
        also_reads: stages whose tables are looked up by uid as well (the same shard for map stages, all for gathers).
    """

    name: str
    version: ClassVar[int]
    schema: pa.Schema
    rows_from: str | None
    also_reads: tuple[str, ...] = ()

    def __init__(self, config: StageSection) -> None:
        self.config = config

    def models(self) -> dict[str, str]:
        """Identity of everything outside the config that decides the output: name@revision or a weights hash."""
        return {}

    @cached_property
    def identity(self) -> dict[str, str]:
        """`models()`, asked once, because weights take long to hash; a run sets it to what it found at its start."""
        return self.models()

    def decisions(self) -> dict[str, dict[str, Any]]:
        """What is applied to the experts' tables as they are read, by expert and setting."""
        return {}

    def check(self) -> None:  # noqa: B027  an optional hook, not a forgotten abstract
        """Look, before anything starts, for what would stop every shard.

        Raises:
            RequestError: one paragraph: what, where, what to do.
        """

    def open(self) -> None:  # noqa: B027
        """Load weights, start engines. Raises SetupError where no worker could."""

    def close(self) -> None:  # noqa: B027
        """Give back what `open` took. Called once, also after an error."""


class MapStage(Stage):
    """Turns shard k into shard k."""

    @abstractmethod
    def process(self, shard: ShardInput) -> ShardOutput: ...

    def quarantine(self, rows: pa.Table) -> ShardOutput:
        """What becomes of rows (of the `rows_from` table) that kill every process which works on them.

        They stop here with reason `poison`. A stage that never drops overrides this to say so in a row of its own.
        """
        uids = rows.column("uid").to_pylist()
        urls = rows.column("url").to_pylist() if "url" in rows.column_names else [""] * len(uids)
        drops = [Drop(uid, url, Reason.POISON, POISON_DETAIL) for uid, url in zip(uids, urls, strict=True)]
        return ShardOutput(self.schema.empty_table(), drops)


class GatherInput(Protocol):
    """All shards of the stages a gather reads, the workers it may spread over, and what it keeps for a resume.

    Attributes:
        scratch: an empty folder of this attempt's own; removed afterwards.
        kept: a folder that outlives an attempt which is killed: the next one of the same fingerprint finds what lies
            there (`stages.kept`); removed after the commit. All workers see both folders.
    """

    scratch: Path
    kept: Path

    def shards(self, stage: str) -> list[str]:
        """Shard names in order."""

    def table(self, stage: str, shard: str, columns: list[str] | None = None) -> pa.Table:
        """Committed rows of one shard."""

    def file(self, stage: str, shard: str, kind: str) -> Path:
        """A committed file of one shard, to read. Raises KeyError where the shard has none of that kind."""

    def spread(self, work: Callable[["GatherInput", A], R], items: Sequence[A]) -> Iterator[R]:
        """What `work` makes of each item, in the order of the items, whichever worker made it.

        Args:
            work: a module's function; it may be called again for an item whose worker died.
            items: small; what is large lies in `kept` or `scratch`.
        """


class GatherStage(Stage):
    """Sees all shards; its output is shards again.

    `process` yields (shard name, output) in order of name. Drops and metrics may be spread over the outputs in any way;
    an output's `files` are kept under its shard name.
    """

    @abstractmethod
    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]: ...


def shard_name(index: int) -> str:
    """Name of shard number `index`, counted from 0: `00042`."""
    return f"{index:05d}"


def align(table: pa.Table, uids: list[str] | pa.ChunkedArray) -> pa.Table:
    """The rows of `table` that belong to `uids`, in that order.

    Raises:
        KeyError: a uid is not in the table.
    """
    wanted = pa.array(uids, pa.string()) if isinstance(uids, list) else uids
    places = pc.index_in(wanted, value_set=table.column("uid"))
    if places.null_count:
        raise KeyError(wanted.filter(places.is_null())[0].as_py())
    return table.take(places)
