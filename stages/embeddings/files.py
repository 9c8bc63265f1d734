"""Files of embeddings as others write them: parquet with a list column, clip-retrieval's .npy beside its metadata."""

import glob
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import RequestError
from stages.sources.columns import ALIASES, canonical_batch
from stages.sources.find import SourceFile

Key = Literal["uid", "url"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "uid": ALIASES["uid"],
    "url": ALIASES["url"],
    "embedding": ("embedding", "embeddings", "image_embedding", "img_emb", "image_emb", "clip_embedding", "vector"),
}
"""Canonical names and the known aliases, matched case-insensitively, first hit wins."""

_NPY_PREFIX = "img_emb_"
_METADATA_PREFIX = "metadata_"
_BATCH_ROWS = 4096


class EmbeddingFile(ABC):
    """Vectors and the key of each.

    Attributes:
        path: of the vectors.
        count: rows.
        width: numbers in a vector.
    """

    path: Path
    count: int
    width: int

    @abstractmethod
    def keys(self) -> Iterator[list[str | None]]:
        """The keys of all rows in order, as ingest would read them; None where a row has none."""

    @abstractmethod
    def read(self, rows: np.ndarray) -> np.ndarray:
        """float32 of (len(rows), width) for ascending row numbers; NaN where a row holds no vector of this width."""

    @abstractmethod
    def identity(self) -> str:
        """What decides keys and vectors, by content where files are small (`SourceFile.identity`), never by name."""


class ParquetEmbeddings(EmbeddingFile):
    """One parquet file; `read` holds one batch of rows, however large the row groups are.

    Raises:
        RequestError: not parquet, no key or embedding column, or not a list of floats.
    """

    def __init__(self, path: Path, key: Key, columns: dict[str, str]) -> None:
        self.path = path
        self._key = key
        with _opened(path) as file:
            names = file.schema_arrow.names
            self._keys = _column(names, key, columns, path)
            self._vectors = _column(names, "embedding", columns, path)
            kind = file.schema_arrow.field(self._vectors).type
            self.count = file.metadata.num_rows
            self.width = self._first_width(file, kind)
            groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])

    def keys(self) -> Iterator[list[str | None]]:
        yield from _keys(self.path, self._key, self._keys)

    def read(self, rows: np.ndarray) -> np.ndarray:
        out = np.full((len(rows), self.width), np.nan, np.float32)
        with _opened(self.path) as file:
            for group, (first, end) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
                low, high = np.searchsorted(rows, (first, end))
                if low < high:
                    self._read_group(file, group, rows[low:high] - first, out[low:high])
        return out

    def identity(self) -> str:
        return SourceFile(self.path, self.path.name).identity()

    def _read_group(self, file: Any, group: int, rows: np.ndarray, out: np.ndarray) -> None:
        start = 0
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[self._vectors]):
            low, high = np.searchsorted(rows, (start, start + batch.num_rows))
            if low < high:
                vectors = batch.column(0).take(pa.array(rows[low:high] - start))
                whole = pc.equal(pc.list_value_length(vectors), self.width).fill_null(False)
                numbers = vectors.filter(whole).flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
                out[low:high][whole.to_numpy(zero_copy_only=False)] = numbers.reshape(-1, self.width)
            start += batch.num_rows
            if high == len(rows):
                return

    def _first_width(self, file: Any, kind: pa.DataType) -> int:
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not lists or not pa.types.is_floating(kind.value_type):
            raise RequestError(
                f"{self.path}: the column {self._vectors} is {kind}, not a list of floats. Name the column of the "
                "vectors: `embed: {precomputed: {columns: {embedding: THEIR_NAME}}}`."
            )
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        for batch in file.iter_batches(_BATCH_ROWS, columns=[self._vectors]):
            lengths = pc.list_value_length(batch.column(0)).drop_null()
            if len(lengths):
                return int(lengths[0].as_py())
        raise RequestError(f"{self.path}: the column {self._vectors} holds no vector. Take the file out.")


class NpyEmbeddings(EmbeddingFile):
    """clip-retrieval's pair: img_emb_N.npy of (rows, width) and metadata_N.parquet, row by row. Read by memory map.

    Raises:
        RequestError: not such a pair.
    """

    def __init__(self, path: Path, metadata: Path, key: Key, columns: dict[str, str]) -> None:
        self.path = path
        self._metadata = metadata
        self._key = key
        vectors = self._mapped()
        if vectors.ndim != 2 or vectors.dtype.kind != "f":
            raise RequestError(f"{path} holds {vectors.dtype} of shape {vectors.shape}, not float vectors as rows.")
        self.count, self.width = vectors.shape
        with _opened(metadata) as file:
            self._keys = _column(file.schema_arrow.names, key, columns, metadata)
            if file.metadata.num_rows != self.count:
                raise RequestError(
                    f"{metadata} has {file.metadata.num_rows} rows and {path} has {self.count}: they do not belong "
                    "together, or one of them is not whole. Fetch both again."
                )

    def keys(self) -> Iterator[list[str | None]]:
        yield from _keys(self._metadata, self._key, self._keys)

    def read(self, rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.asarray(self._mapped()[rows], np.float32)

    def identity(self) -> str:
        return f"{SourceFile(self.path, '').identity()} {SourceFile(self._metadata, '').identity()}"

    def _mapped(self) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise RequestError(f"{self.path} is not a .npy file of numbers: {error}. Fetch it again.") from error
        return array


def find_embeddings(sources: list[str], metadata: str | None, key: Key, columns: dict[str, str]) -> list[EmbeddingFile]:
    """The files behind files, folders (searched to any depth) and globs: sources as given, sorted within each.

    Of a folder, img_emb_*.npy and parquet files are taken; parquet files named metadata_* belong to the former. The
    metadata of img_emb_N.npy is metadata_N.parquet in `metadata`, or beside it, or in ../metadata.

    Raises:
        RequestError: nothing is there, a file is not what it should be, or vectors differ in width.
    """
    paths: dict[Path, None] = {}
    for source in sources:
        for path in _paths(source):
            paths.setdefault(path.resolve())
    files: list[EmbeddingFile] = []
    for path in paths:
        if path.suffix == ".npy":
            files.append(NpyEmbeddings(path, _metadata_of(path, metadata), key, columns))
        else:
            files.append(ParquetEmbeddings(path, key, columns))
    for file in files:
        if file.width != files[0].width:
            raise RequestError(
                f"embed.precomputed.files: vectors of {file.path} have {file.width} numbers, those of "
                f"{files[0].path} {files[0].width}. Vectors of different models do not compare: name files of one."
            )
    return files


def files_identity(files: list[EmbeddingFile]) -> str:
    """`files:<sha256>` over the identities of all, in reading order."""
    listed = "\n".join(file.identity() for file in files)
    return f"files:{hashlib.sha256(listed.encode()).hexdigest()}"


def _paths(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        found = [
            p
            for p in sorted(path.rglob("*"))
            if p.is_file()
            and (
                (p.suffix == ".npy" and p.name.startswith(_NPY_PREFIX))
                or (p.suffix == ".parquet" and not p.name.startswith(_METADATA_PREFIX))
            )
        ]
        if not found:
            raise RequestError(
                f"embed.precomputed.files: the folder {source} holds neither {_NPY_PREFIX}*.npy nor parquet."
            )
        return found
    found = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207  Path.glob takes no absolute pattern
    found = [p for p in found if p.is_file()]
    if not found:
        raise RequestError(
            f"embed.precomputed.files: there is no {source}. Give an existing file, a folder, or a glob that matches."
        )
    for p in found:
        if p.suffix not in (".npy", ".parquet"):
            raise RequestError(f"embed.precomputed.files: {p} is neither .npy nor .parquet.")
    return found


def _metadata_of(path: Path, metadata: str | None) -> Path:
    number = path.stem.removeprefix(_NPY_PREFIX)
    name = f"{_METADATA_PREFIX}{number}.parquet"
    folders = [Path(metadata).expanduser()] if metadata else [path.parent, path.parent.parent / "metadata"]
    for folder in folders if path.name.startswith(_NPY_PREFIX) else []:
        if (folder / name).is_file():
            return folder / name
    raise RequestError(
        f"embed.precomputed.files: the rows of {path} have no keys. {_METADATA_PREFIX}N.parquet must lie beside "
        f"{_NPY_PREFIX}N.npy, in ../metadata, or in the folder that embed.precomputed.metadata names."
    )


def _column(names: list[str], canonical: str, columns: dict[str, str], path: Path) -> str:
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.casefold(), name)
    wanted = (columns[canonical],) if canonical in columns else COLUMNS[canonical]
    hit = next((folded[name.casefold()] for name in wanted if name.casefold() in folded), None)
    if hit is None:
        other = " Or join by the other: `embed: {precomputed: {key: url}}`." if canonical == "uid" else ""
        raise RequestError(
            f"{path} has no column {' or '.join(wanted)}. It has: {', '.join(names) or 'none'}. Name it: "
            f"`embed: {{precomputed: {{columns: {{{canonical}: THEIR_NAME}}}}}}`.{other}"
        )
    return hit


def _keys(path: Path, key: Key, column: str) -> Iterator[list[str | None]]:
    with _opened(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=[column]):
            yield canonical_batch(batch, {key: column})[key]


def _opened(path: Path) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(
            f"{path} cannot be read as parquet: {str(error).splitlines()[0]}. Fetch it again."
        ) from error
