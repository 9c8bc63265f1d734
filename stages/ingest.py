"""`ingest`: web-image metadata files become shards of one schema; what is refused by its stated values stops here."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from schemas.errors import RequestError
from schemas.ledger import Drop, Reason
from schemas.section import StageSection, located
from schemas.tables import INGEST
from stages.base import GatherInput, GatherStage, ShardOutput
from stages.reshard import Reshard
from stages.sources.columns import ALIASES, canonical_batch, known_columns, resolve_columns
from stages.sources.find import SourceFile, find_sources
from stages.sources.identity import Identities, bad_url
from stages.sources.readers import open_metadata


class IngestSection(StageSection):
    """Which metadata is read, and what it must state.

    A stated size may be missing or zero: such a row passes, because the true size is checked after the download. A
    score or a language is never looked at again: a row that does not state what a filter asks for stops.
    """

    sources: list[str] = located(
        min_length=1,
        description="local metadata files, folders (searched to any depth) or globs: parquet, csv, tsv, jsonl; the "
        "last three may be gzipped",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="canonical column name to the name in the files, where the known aliases do not fit; "
        f"canonical names are {', '.join(ALIASES)}",
    )
    shard_rows: int = Field(1000, ge=1, le=100_000, description="rows in a shard; the last one may hold fewer")
    limit: int | None = Field(None, ge=1, description="stop reading after this many rows were kept; null reads all")
    min_short_edge: int = Field(
        448, ge=0, description="least stated short edge, px; 448 is the paper's (DenseFusion section 3.1)"
    )
    max_punsafe: float | None = Field(
        None, ge=0, le=1, description="greatest stated probability of unsafe content; null does not filter"
    )
    max_pwatermark: float | None = Field(
        None, ge=0, le=1, description="greatest stated probability of a watermark; null does not filter"
    )
    min_aesthetic: float | None = Field(
        None, ge=0, le=10, description="least stated aesthetic score; null does not filter"
    )
    languages: list[str] | None = Field(
        None, min_length=1, description="stated languages that are kept, such as [en]; null does not filter"
    )

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        return known_columns(columns, ALIASES)

    def needed(self) -> dict[str, str]:
        """Canonical columns that a filter cannot do without, each with the option that asks for it."""
        filters = {
            "punsafe": ("max_punsafe", self.max_punsafe),
            "pwatermark": ("max_pwatermark", self.max_pwatermark),
            "aesthetic": ("min_aesthetic", self.min_aesthetic),
            "language": ("languages", self.languages),
        }
        return {column: option for column, (option, value) in filters.items() if value is not None}


class IngestStage(GatherStage):
    """Reads the sources in the order given and cuts what is kept into shards, in that order.

    The first row of a URL speaks for the URL, whatever its fate; later ones stop as duplicates. Of img2dataset's own
    output (a `status` column) only rows marked success, or not marked, are taken: the others had no bytes already then.

    Raises (in `check`, `models` and `process`):
        RequestError: a source is missing, is not what its name says, or lacks a column that is needed.
    """

    name = "ingest"
    version = 1
    schema = INGEST
    rows_from = None
    config: IngestSection

    def check(self) -> None:
        for file in find_sources(self.config.sources):
            self._columns(file)

    def models(self) -> dict[str, str]:
        """Identity of each source file, by its place in the reading order and its name."""
        files = find_sources(self.config.sources)
        return {f"source {place} {file.name}": file.identity() for place, file in enumerate(files)}

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        shards = Reshard(self.schema, self.config.shard_rows)
        for rows, drops in self._admitted():
            yield from shards.add(rows, drops)
        yield shards.finish()

    def _admitted(self) -> Iterator[tuple[pa.Table, list[Drop]]]:
        """Kept rows and drops, batch by batch, until the sources or the limit end."""
        identities = Identities()
        left = self.config.limit
        for place, file in enumerate(find_sources(self.config.sources)):
            found = self._columns(file)
            first = 0
            for batch in open_metadata(file.path).batches(list(dict.fromkeys(found.values()))):
                columns = canonical_batch(batch, found)
                rows: list[dict[str, Any]] = []
                drops: list[Drop] = []
                for i in range(batch.num_rows):
                    if left is not None and len(rows) == left:
                        break
                    row = {name: values[i] for name, values in columns.items()}
                    uid, refusal = self._judge(row, identities, f"{place}:{first + i}")
                    if refusal:
                        drops.append(Drop(uid, row["url"] or "", *refusal))
                    else:
                        rows.append(row | {"uid": uid, "source": file.name, "source_row": first + i})
                first += batch.num_rows
                yield pa.Table.from_pylist(rows, schema=self.schema), drops
                if left is not None:
                    left -= len(rows)
                    if left == 0:
                        return

    def _columns(self, file: SourceFile) -> dict[str, str]:
        found = resolve_columns(open_metadata(file.path).columns(), self.config.columns, str(file.path))
        for column, option in self.config.needed().items():
            if column not in found:
                raise RequestError(
                    f"{file.path} states no {column}, which ingest.{option} filters by. Remove ingest.{option}, "
                    f"or name the column: `ingest: {{columns: {{{column}: THEIR_NAME}}}}`."
                )
        return found

    def _judge(self, row: dict[str, Any], identities: Identities, place: str) -> tuple[str, tuple[Reason, str] | None]:
        """The row's uid, and why it stops if it does."""
        url = row["url"]
        if url is None:
            return identities.unaddressed(place), (Reason.NO_URL, "")
        uid, refusal = identities.assign(url, row["uid"])
        if refusal is None and (fault := bad_url(url)):
            refusal = (Reason.BAD_URL, fault)
        return uid, refusal or self._refusal(row)

    def _refusal(self, row: dict[str, Any]) -> tuple[Reason, str] | None:
        """The first of the stated values that stops a row."""
        config = self.config
        if row["status"] not in (None, "success"):
            return Reason.SOURCE_STATUS, str(row["status"])
        sizes = [size for size in (row["width"], row["height"]) if size is not None]
        if sizes and min(sizes) < config.min_short_edge:
            return Reason.STATED_SIZE, f"short edge {min(sizes)} px is below {config.min_short_edge}"
        for column, most, reason in (
            ("punsafe", config.max_punsafe, Reason.UNSAFE),
            ("pwatermark", config.max_pwatermark, Reason.WATERMARK),
        ):
            if most is not None and (row[column] is None or row[column] > most):
                return reason, _against(column, row[column], "above", most)
        least = config.min_aesthetic
        if least is not None and (row["aesthetic"] is None or row["aesthetic"] < least):
            return Reason.AESTHETIC, _against("aesthetic", row["aesthetic"], "below", least)
        if config.languages is not None and row["language"] not in {name.lower() for name in config.languages}:
            return Reason.LANGUAGE, row["language"] or "states no language"
        return None


def _against(column: str, value: float | None, side: str, bound: float) -> str:
    return f"states no {column}" if value is None else f"{column} {value:g} is {side} {bound:g}"
