"""The dataset folder: what `package` committed, as its readers want it.

    <dataset>/data/00000.tar …   WebDataset shards, numbered without gaps
    <dataset>/index.parquet      one row a sample, with its place in the tars
    <dataset>/README.md          the dataset card
    <dataset>/manifest.json      bytes and sha256 of all of these; written last

A folder without a manifest is not finished: it was killed in the middle, and the same call completes it. What is there
already with the right bytes is never written again.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import RequestError
from schemas.identity import file_sha256
from schemas.tables import PACKAGE
from stages.base import shard_name

MANIFEST = "manifest.json"
INDEX = "index.parquet"
CARD = "README.md"
_UNFINISHED = ".unfinished"
_TEMPORARY = ".tmp-"
INDEX_SCHEMA = pa.schema([pa.field("tar", pa.string(), nullable=False), *PACKAGE])


@dataclass(frozen=True)
class PackagedShard:
    """One shard as `package` committed it: name, tar, what the commit says of the tar, and rows (tables.PACKAGE)."""

    name: str
    tar: Path
    sha256: str
    bytes: int
    rows: pa.Table


@dataclass(frozen=True)
class DatasetFile:
    """One file of a dataset: path in the folder, bytes, sha256, and the samples in it (0 for what is no tar)."""

    path: str
    bytes: int
    sha256: str
    rows: int = 0


@dataclass(frozen=True)
class Manifest:
    """All files of a finished dataset but the manifest itself, tars first."""

    files: tuple[DatasetFile, ...]

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.files)

    @property
    def total_bytes(self) -> int:
        return sum(f.bytes for f in self.files)

    def to_json(self) -> bytes:
        files = [asdict(f) for f in self.files]
        return (json.dumps({"rows": self.rows, "bytes": self.total_bytes, "files": files}, indent=1) + "\n").encode()


def read_manifest(dataset: Path) -> Manifest:
    """The manifest of a dataset folder.

    Raises:
        RequestError: there is no finished dataset.
    """
    try:
        files = json.loads((dataset / MANIFEST).read_bytes())["files"]
        return Manifest(tuple(DatasetFile(**f) for f in files))
    except FileNotFoundError:
        raise RequestError(
            f"{dataset} holds no finished dataset: it has no {MANIFEST}. Complete the run (`densefusion run`) first."
        ) from None
    except (ValueError, KeyError, TypeError) as e:
        raise RequestError(f"{dataset / MANIFEST} is not a dataset manifest ({e}). Run `densefusion run` again.") from e


def check_dataset(dataset: Path, *, deep: bool = True) -> list[str]:
    """What is wrong with a dataset folder, one sentence each; nothing if it is whole.

    A tar that was cut between two members reads as a smaller dataset without an error, so sizes and hashes are held
    against the manifest instead of reading the tars. `deep=False` leaves the hashes out.
    """
    try:
        manifest = read_manifest(dataset)
    except RequestError as e:
        return [str(e)]
    problems = []
    for file in manifest.files:
        path = dataset / file.path
        if not path.is_file():
            problems.append(f"{file.path} is missing.")
        elif (size := path.stat().st_size) != file.bytes:
            problems.append(f"{file.path} has {size} bytes, the manifest says {file.bytes}.")
        elif deep and file_sha256(path) != file.sha256:
            problems.append(f"{file.path} has other content than the manifest says.")
    return problems


def assemble_dataset(dataset: Path, shards: Iterable[PackagedShard], card: str) -> Manifest:
    """Make the dataset folder from the packaged shards, in their order; shards without rows leave no tar.

    Tars are hard links into the store where the file system can, else copies: `package` never changes a committed tar.
    Repeated, it changes nothing; after a kill, it completes; with other shards, what is stale goes.

    Raises:
        RequestError: the folder holds something that is not a dataset, or a tar is not as long as its commit says.
    """
    folder = DatasetFolder(dataset)
    index = folder.temporary()
    with pq.ParquetWriter(index, INDEX_SCHEMA, compression="zstd") as writer:
        for number, shard in enumerate(s for s in shards if s.rows.num_rows):
            if (size := shard.tar.stat().st_size) != shard.bytes:
                raise RequestError(
                    f"The tar of package shard {shard.name}, {shard.tar}, has {size} bytes; its commit says "
                    f"{shard.bytes}. `densefusion verify` names all damaged objects of the run."
                )
            path = f"data/{shard_name(number)}.tar"
            folder.link(DatasetFile(path, size, shard.sha256, shard.rows.num_rows), shard.tar)
            names = pa.array([path] * shard.rows.num_rows, pa.string())
            writer.write_table(pa.table([names, *shard.rows.columns], schema=INDEX_SCHEMA))
    folder.add(DatasetFile(INDEX, index.stat().st_size, file_sha256(index)), index.replace)
    text = card.encode()
    folder.add(DatasetFile(CARD, len(text), hashlib.sha256(text).hexdigest()), lambda path: path.write_bytes(text))
    return folder.finish()


class DatasetFolder:
    """A dataset folder under change: every file appears whole, the manifest goes first and comes back last."""

    def __init__(self, root: Path) -> None:
        if root.exists() and not root.is_dir():
            raise RequestError(f"{root} is not a folder. Give a new or empty folder for the dataset.")
        if root.is_dir() and any(root.iterdir()) and not ((root / MANIFEST).exists() or (root / _UNFINISHED).exists()):
            raise RequestError(f"{root} holds files that are not a dataset. Give a new or empty folder.")
        root.mkdir(parents=True, exist_ok=True)
        if not (root / MANIFEST).exists():
            (root / _UNFINISHED).touch()
        (root / "data").mkdir(exist_ok=True)
        self.root = root
        self.files: list[DatasetFile] = []

    def temporary(self) -> Path:
        """A new name in the folder; `finish` removes what a killed process left under such names."""
        return self.root / f"{_TEMPORARY}{uuid.uuid4().hex}"

    def link(self, file: DatasetFile, source: Path) -> None:
        """Add a tar by hard link where possible."""
        target = self.root / file.path
        if target.exists() and target.samefile(source):
            self.files.append(file)
        else:
            self.add(file, lambda path: _link_or_copy(source, path))

    def add(self, file: DatasetFile, make: Callable[[Path], object]) -> None:
        """Add a file, made under a temporary name, unless it is there with the right bytes."""
        target = self.root / file.path
        if not has_content(target, file):
            self._begin()
            temporary = self.temporary()
            make(temporary)
            temporary.replace(target)
        self.files.append(file)

    def finish(self) -> Manifest:
        """Remove stale tars and leftovers, then write the manifest."""
        manifest = Manifest(tuple(self.files))
        data = manifest.to_json()
        target = self.root / MANIFEST
        keep = {self.root / f.path for f in self.files}
        stale = [tar for tar in (self.root / "data").glob("*.tar") if tar not in keep]
        if stale or not (target.exists() and target.read_bytes() == data):
            self._begin()
            for tar in stale:
                tar.unlink()
            temporary = self.temporary()
            temporary.write_bytes(data)
            temporary.replace(target)
        (self.root / _UNFINISHED).unlink(missing_ok=True)
        for leftover in self.root.glob(f"{_TEMPORARY}*"):
            leftover.unlink()
        return manifest

    def _begin(self) -> None:
        (self.root / _UNFINISHED).touch()
        (self.root / MANIFEST).unlink(missing_ok=True)


def has_content(path: Path, file: DatasetFile) -> bool:
    """Whether the file at `path` has the stated size and sha256."""
    return path.is_file() and path.stat().st_size == file.bytes and file_sha256(path) == file.sha256


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
