"""Tar archives that are equal where their members are."""

import io
import tarfile
from typing import IO

from schemas.errors import ContractError


class DeterministicTar:
    """A USTAR archive whose bytes depend on names and contents alone: no times, owners or other modes than 0644."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._tar = tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  closed in __exit__

    def __enter__(self) -> "DeterministicTar":
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def add(self, name: str, data: bytes) -> int:
        """Append one member; returns the offset of its first content byte in the archive.

        Raises:
            ContractError: a name that readers would not group by uid, or that leads out of the folder.
        """
        if not (name.isascii() and name.split(".")[0].isalnum()):
            raise ContractError(f"{name!r} is no member name: a uid is letters and digits")
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        offset = self._raw.tell() + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(data))
        return offset
