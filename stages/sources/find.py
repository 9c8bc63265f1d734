"""From what a user names as sources to the metadata files behind it."""

import glob
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import RequestError
from schemas.identity import file_sha256

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")

HASHED_BELOW = 64 * 1024 * 1024
"""Files of fewer bytes are identified by their sha256; hashing hundreds of gigabytes at every start would be worse
than trusting size and modification time."""


@dataclass(frozen=True)
class SourceFile:
    """One metadata file.

    Attributes:
        path: where it is.
        name: file name, or the path below the folder it was found in; what `source` says in the ingest rows.
    """

    path: Path
    name: str

    def identity(self) -> str:
        """`sha256:<hex>` below HASHED_BELOW bytes, else `stat:<bytes>:<modification time in ns>`."""
        stat = self.path.stat()
        if stat.st_size >= HASHED_BELOW:
            return f"stat:{stat.st_size}:{stat.st_mtime_ns}"
        return f"sha256:{file_sha256(self.path)}"


def find_sources(sources: list[str]) -> list[SourceFile]:
    """The files behind files, folders (searched to any depth) and globs: sources as given, sorted within each.

    A file that two sources name is read once, where it is first named.

    Raises:
        RequestError: nothing is there, a folder holds no metadata, or a file is of an unknown kind.
    """
    found: dict[Path, SourceFile] = {}
    for source in sources:
        for file in _find(source):
            found.setdefault(file.path.resolve(), file)
    return list(found.values())


def _find(source: str) -> list[SourceFile]:
    if "://" in source:
        raise RequestError(
            f"ingest.sources: {source} is not a local path. Download the metadata first and name its files."
        )
    path = Path(source).expanduser()
    if path.is_dir():
        files = [
            SourceFile(p, p.relative_to(path).as_posix())
            for p in sorted(path.rglob("*"))
            if p.is_file() and _readable(p)
        ]
        if not files:
            raise RequestError(f"ingest.sources: the folder {source} holds no metadata file ({', '.join(SUFFIXES)}).")
        return files
    paths = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207  Path.glob takes no absolute pattern
    files = [SourceFile(p, p.name) for p in paths if p.is_file()]
    if not files:
        raise RequestError(
            f"ingest.sources: there is no {source}. Give an existing file, a folder, or a glob that matches."
        )
    for file in files:
        if not _readable(file.path):
            raise RequestError(
                f"ingest.sources: {file.path} is of a kind that cannot be read. Give one of {', '.join(SUFFIXES)}."
            )
    return files


def _readable(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)
