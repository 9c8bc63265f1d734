"""Where a run directory's objects live. Small on purpose: an object store with conditional puts fits behind it.

Keys are relative to the run directory, with forward slashes. What is written is whole or absent, never in between.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import RequestError
from schemas.identity import file_sha256


class Storage(ABC):
    """Objects by key. Writers never see each other's half-written objects.

    Attributes:
        location: of the run directory, the same from wherever it is opened.
    """

    location: str

    @abstractmethod
    def read(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes of an object, or of a range of it. Raises FileNotFoundError."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Put an object, replacing what was there."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Put an object only where none is (S3: If-None-Match: *). False: there was one, nothing was written."""

    @abstractmethod
    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Put `new` only where the object still reads `old` (S3: If-Match on its ETag). False: it does not."""

    @abstractmethod
    def upload(self, path: Path, key: str) -> None:
        """Put a local file as an object; the local file may be gone afterwards."""

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """Keys under a folder-like prefix, sorted; empty where there is nothing."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Bytes of an object. Raises FileNotFoundError."""

    @abstractmethod
    def sha256(self, key: str) -> str:
        """Hex digest of an object's bytes. Raises FileNotFoundError."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """Where other programs (DuckDB, a shell) find the object."""

    @abstractmethod
    def local(self, key: str) -> Path:
        """A local file with the object's bytes, to read. Raises FileNotFoundError."""

    @abstractmethod
    def scratch(self, name: str) -> Path:
        """An empty local folder for one attempt; the caller removes it."""

    @abstractmethod
    def drop_scratch(self) -> tuple[int, int]:
        """Remove what attempts that died left in such folders. Returns (files, bytes). Only while no runner runs."""

    @abstractmethod
    def kept(self, stage: str, name: str) -> Path:
        """A folder of a stage's own that outlives attempts, with what lies in it."""

    @abstractmethod
    def drop_kept(self, stage: str, name: str | None = None) -> None:
        """Remove such a folder of a stage, or all of them."""

    @abstractmethod
    def lasting(self, stage: str) -> Path:
        """A folder of a stage's own that is never removed."""

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True


class LocalStorage(Storage):
    """A folder on a file system that all workers share (a laptop's disk, NFS, Lustre)."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.location = str(self.root)

    def path(self, key: str) -> Path:
        return self.root / key

    def read(self, key: str, offset: int = 0, size: int | None = None) -> bytes:
        with self.path(key).open("rb") as f:
            f.seek(offset)
            return f.read() if size is None else f.read(size)

    def write(self, key: str, data: bytes) -> None:
        with self._temporary(key, data) as temporary:
            temporary.replace(self.path(key))

    def create(self, key: str, data: bytes) -> bool:
        with self._temporary(key, data) as temporary:
            try:
                os.link(temporary, self.path(key))
            except FileExistsError:
                return False
        return True

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        with self._locked(key):
            try:
                if self.read(key) != old:
                    return False
            except FileNotFoundError:
                return False
            self.write(key, new)
        return True

    def upload(self, path: Path, key: str) -> None:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb+") as f:
            os.fsync(f.fileno())
        try:
            path.replace(target)
        except OSError:  # another file system: copy beside the target first, so that it appears whole
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            shutil.copyfile(path, temporary)
            temporary.replace(target)
            path.unlink()

    def list(self, prefix: str) -> list[str]:
        folder = self.path(prefix)
        if not folder.is_dir():
            return []
        return sorted(
            p.relative_to(self.root).as_posix() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")
        )

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def size(self, key: str) -> int:
        return self.path(key).stat().st_size

    def sha256(self, key: str) -> str:
        return file_sha256(self.path(key))

    def uri(self, key: str) -> str:
        return str(self.path(key))

    def scratch(self, name: str) -> Path:
        folder = self.root / ".scratch" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def drop_scratch(self) -> tuple[int, int]:
        folder = self.root / ".scratch"
        sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
        shutil.rmtree(folder, ignore_errors=True)
        return len(sizes), sum(sizes)

    def local(self, key: str) -> Path:
        path = self.path(key)
        path.stat()
        return path

    def kept(self, stage: str, name: str) -> Path:
        folder = self.root / ".kept" / stage / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def drop_kept(self, stage: str, name: str | None = None) -> None:
        shutil.rmtree(self.root / ".kept" / stage / (name or ""), ignore_errors=True)

    def lasting(self, stage: str) -> Path:
        folder = self.root / stage / "lasting"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextlib.contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[Path]:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Serialise compare-and-replace on one key; the lock goes with the process that holds it."""
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def open_storage(location: str) -> Storage:
    """Storage of a run directory given as the user types it.

    Raises:
        RequestError: a scheme that is not supported here.
    """
    if "://" in location and not location.startswith("file://"):
        scheme = location.split("://", 1)[0]
        raise RequestError(
            f"The run directory {location} is on {scheme}://, which this version cannot write. Give a path on a file "
            "system that all workers share."
        )
    return LocalStorage(Path(location.removeprefix("file://")))
