"""Small pictures of rows, for contact sheets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.pictures import thumbnail_uri
from pipeline.sample import Sample
from pipeline.store import Store
from pipeline.sweep import Pair
from stages.base import ImageSource

EDGE = 224
_COLUMNS = ["uid", "width", "height", "image_offset", "image_bytes"]


@dataclass(frozen=True)
class Tile:
    """One row on a sheet.

    Attributes:
        picture: data: URI; None where the bytes are gone or do not decode.
        width, height: of the original, pixels.
        role: what became of the row: `kept`, `removed`, or nothing worth a word.
        note: how it relates to its sheet: a cosine, bits apart.
    """

    uid: str
    picture: str | None
    width: int
    height: int
    role: str = ""
    note: str = ""


class Tiles:
    """Tiles of rows by uid; where their images lie is looked up once for all.

    Args:
        shards: download shards to look in.
    """

    def __init__(self, store: Store, images: ImageSource, shards: Iterable[str]) -> None:
        self._store = store
        self._images = images
        self._shards = list(shards)
        self._places: dict[str, Mapping[str, Any]] = {}
        self._pictures: dict[str, str | None] = {}

    def know(self, sample: Sample, pairs: Iterable[Pair]) -> None:
        """Take over from a sample where the rows of its pairs lie."""
        shown = sorted({row for pair in pairs for row in (pair.a, pair.b)})
        places = sample.rows.select([*_COLUMNS, "image_shard"]).take(pa.array(shown, pa.int64()))
        self._places.update((row["uid"], row) for row in places.to_pylist())

    def find(self, uids: Iterable[str]) -> None:
        """Look these rows up; those that lie in none of the shards stay unknown."""
        wanted = set(uids) - self._places.keys()
        for shard in self._shards:
            if not wanted:
                return
            self._find_in(shard, wanted)
            wanted -= self._places.keys()

    def _find_in(self, shard: str, wanted: set[str]) -> None:
        table = self._store.table("download", shard, _COLUMNS)
        rows = [i for i, uid in enumerate(table.column("uid").to_pylist()) if uid in wanted]
        for row in table.take(np.array(rows, np.int64)).to_pylist():
            self._places[row["uid"]] = {**row, "image_shard": shard}

    def __contains__(self, uid: str) -> bool:
        return uid in self._places

    def tile(self, uid: str, role: str = "", note: str = "") -> Tile:
        """Raises KeyError where the row was not found."""
        place = self._places[uid]
        if uid not in self._pictures:
            self._pictures[uid] = self._picture(place)
        return Tile(uid, self._pictures[uid], place["width"], place["height"], role, note)

    def _picture(self, place: Mapping[str, Any]) -> str | None:
        try:
            content = self._images.read(place["image_shard"], place["image_offset"], place["image_bytes"])
        except FileNotFoundError:  # a damaged store still has a report; `verify` says what is missing
            return None
        return thumbnail_uri(content, EDGE)
