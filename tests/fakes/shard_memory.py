"""A ShardMemory over folders, without a run around it."""

from collections.abc import Iterator, Sequence
from pathlib import Path


class FolderMemory:
    """What attempts at one shard leave behind lies in `folder`; a later attempt is given the same one.

    Args:
        earlier: files that the stage has committed, each named by its kind (`answers.parquet`), this shard's own first.
    """

    def __init__(self, folder: Path, earlier: Sequence[Path] = ()) -> None:
        self._folder, self._earlier = folder, tuple(earlier)

    def kept(self) -> Path:
        return self._made("kept")

    def earlier(self, kind: str) -> Iterator[Path]:
        return (path for path in self._earlier if path.stem == kind)

    def lasting(self) -> Path:
        return self._made("lasting")

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
