"""Where a shard's bodies wait, in the order they came, until all have come."""

from pathlib import Path
from typing import Any

from schemas.errors import ContractError
from stages.fetch.errors import FetchRefused
from stages.fetch.inspector import Inspected


class Spool:
    """A sample writer for img2dataset: bodies go to one file as they come, so that a shard never sits in memory.

    img2dataset prints and forgets what goes wrong in a writer (a full disk); here the first such error is kept and
    `outcome` raises it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._outcomes: dict[str, Inspected | FetchRefused] = {}
        self._places: dict[str, tuple[int, int]] = {}
        self._error: Exception | None = None

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, sample: tuple[bytes, Inspected] | None, key: str, caption: object, meta: dict[str, Any]) -> None:
        """As img2dataset calls it: what the resizer made of a body, or None and `meta["error_message"]`."""
        try:
            if sample is None:
                self._outcomes[meta["uid"]] = FetchRefused.parse(meta["error_message"])
                return
            body, inspected = sample
            self._places[meta["uid"]] = self._file.tell(), len(body)
            self._file.write(body)
            self._outcomes[meta["uid"]] = inspected
        except Exception as error:
            self._error = self._error or error

    def close(self) -> None:
        """img2dataset's end of the shard; the bodies are still to be read."""

    def outcome(self, uid: str) -> Inspected | FetchRefused:
        """What became of a row.

        Raises:
            OSError: bodies could not be written.
            ContractError: the downloader never told.
        """
        if self._error is not None:
            raise self._error
        if uid not in self._outcomes:
            raise ContractError(f"img2dataset gave no outcome for row {uid}")
        return self._outcomes[uid]

    def body(self, uid: str) -> bytes:
        """The bytes of a row whose outcome is `Inspected`."""
        place, size = self._places[uid]
        self._file.seek(place)
        return self._file.read(size)
