"""Metadata files as streams of Arrow record batches; memory is bounded by one batch, not by the file."""

import gzip
import itertools
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from schemas.errors import RequestError

BATCH_ROWS = 8192
_CSV_BLOCK = 8 * 1024 * 1024
_KEYS_FROM = 10_000


class MetadataReader(ABC):
    """One file. Every method raises RequestError naming the file when its bytes are not what its name says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the file's columns."""

    @abstractmethod
    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The named columns of all rows, in the file's order."""

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, zlib.error) as e:
            raise RequestError(
                f"{self.path} cannot be read: {str(e).splitlines()[0].rstrip('.')}. "
                "Fetch the file again, or take it out of ingest.sources."
            ) from e


class ParquetReader(MetadataReader):
    def columns(self) -> list[str]:
        import pyarrow.parquet as pq

        with self._reading():
            return list(pq.read_schema(self.path).names)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        with self._reading(), pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=columns)


class DelimitedReader(MetadataReader):
    """csv and tsv with a header line, gzipped or not.

    Every column is read as text: a type guessed from the first rows would refuse a later one.
    """

    def columns(self) -> list[str]:
        with self._open([]) as stream:
            return list(stream.schema.names)

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with self._open(columns) as stream:
            yield from stream

    @contextmanager
    def _open(self, columns: list[str]) -> Iterator[Any]:
        import pyarrow.csv as pc

        tabs = self.path.name.lower().removesuffix(".gz").endswith(".tsv")
        with self._reading(), pa.input_stream(self.path, compression="gzip" if self._gzipped else None) as raw:
            yield pc.open_csv(
                raw,
                read_options=pc.ReadOptions(block_size=_CSV_BLOCK),
                parse_options=pc.ParseOptions(delimiter="\t" if tabs else ",", newlines_in_values=True),
                convert_options=pc.ConvertOptions(
                    include_columns=columns, column_types={name: pa.string() for name in columns}
                ),
            )

    @property
    def _gzipped(self) -> bool:
        return self.path.name.lower().endswith(".gz")


class JsonLinesReader(MetadataReader):
    """One JSON object a line, gzipped or not; keys may be missing from a line."""

    def columns(self) -> list[str]:
        """The keys of the first 10,000 lines; a key that first appears later is not seen."""
        with self._reading(), self._open() as lines:
            return list(dict.fromkeys(key for row in self._rows(itertools.islice(lines, _KEYS_FROM)) for key in row))

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with self._reading(), self._open() as lines:
            rows = self._rows(lines)
            while chunk := list(itertools.islice(rows, BATCH_ROWS)):
                yield pa.record_batch({name: _column([row.get(name) for row in chunk]) for name in columns})

    def _rows(self, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as e:
                raise RequestError(
                    f"{self.path}, line {number}: not JSON ({e.msg}). Fetch the file again, or take the line out."
                ) from e
            if not isinstance(row, dict):
                raise RequestError(f"{self.path}, line {number}: expected a JSON object, got {line.strip()[:40]}.")
            yield row

    def _open(self) -> IO[str]:
        if self.path.name.lower().endswith(".gz"):
            return gzip.open(self.path, "rt", encoding="utf-8")
        return self.path.open(encoding="utf-8")


def _column(values: list[Any]) -> pa.Array:
    """Values of one key; a key whose values are of several types becomes text, which the numeric columns parse.

    JSON can spell half of a surrogate pair, which UTF-8 cannot: it becomes a question mark.
    """
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return pa.array([v if v is None else _plain(v).encode("utf-8", "replace").decode() for v in values])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def open_metadata(path: Path) -> MetadataReader:
    """The reader for a file, by its name's ending (stages.sources.find.SUFFIXES)."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".parquet"):
        return ParquetReader(path)
    if name.endswith(".jsonl"):
        return JsonLinesReader(path)
    return DelimitedReader(path)
