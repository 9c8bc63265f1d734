"""Captions of a file."""

import json
from collections.abc import Sequence
from pathlib import Path

from fusion.evaluate.captioners.base import Captioned, Captioner
from fusion.evaluate.section import FileCaptioner
from fusion.evaluate.truth import TruthRow
from schemas.errors import RequestError


class CaptionsOfFile(Captioner):
    """JSONL of uid and caption; rows of other pictures are passed over, a missing one is an error."""

    def __init__(self, section: FileCaptioner) -> None:
        self._path = Path(section.path)

    def caption(self, rows: Sequence[TruthRow]) -> list[Captioned]:
        found = self._read()
        missing = [row.uid for row in rows if row.uid not in found]
        if missing:
            raise RequestError(
                f"{self._path} has no caption of {len(missing)} of {len(rows)} rows of the truth, the first is "
                f"{missing[0]}. Give each a line with its uid; an empty caption counts as one that says nothing."
            )
        return [Captioned(found[row.uid]) for row in rows]

    def _read(self) -> dict[str, str]:
        if not self._path.is_file():
            raise RequestError(f"There is no file of captions {self._path}.")
        found: dict[str, str] = {}
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    uid, text = row["uid"], row["caption"]
                except (ValueError, KeyError, TypeError):
                    raise RequestError(f"{self._path}, line {number}: not an object with uid and caption.") from None
                if not isinstance(uid, str) or not isinstance(text, str):
                    raise RequestError(f"{self._path}, line {number}: uid and caption must be text.")
                if uid in found:
                    raise RequestError(f"{self._path}, line {number}: the uid {uid} was there before.")
                found[uid] = text
        return found
