"""The rows of all sources as one map-style dataset, in which a bad row is reported and another takes its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from fusion.train.encoding import Encoder
from fusion.train.sources.base import BadRowError, Source
from schemas.errors import RequestError

MAX_REPLACEMENTS = 100
LOOKED_AT = 16
"""Rows of each source that are looked at before the training starts."""


@dataclass(frozen=True)
class BadRow:
    """A row that was passed over: its place among all rows, why, and where it lies."""

    row: int
    reason: str
    detail: str
    where: str


class TrainingRows(Dataset):
    """All rows.

    Args:
        limits: of each source, how many of its rows are taken; None takes all.
        seed: draws those rows, and what takes the place of a bad row.

    Attributes:
        words: int32 (rows,), as `Source.words`.
        bytes: as `Source.bytes`, of all.
        sizes: rows of each source.
    """

    def __init__(self, sources: Sequence[Source], limits: Sequence[int | None], encoder: Encoder, seed: int) -> None:
        self._encoder, self._seed, self._sources = encoder, seed, sources
        picked = [
            _picked(len(source), limit, seed, number)
            for number, (source, limit) in enumerate(zip(sources, limits, strict=True))
        ]
        self._source = np.repeat(np.arange(len(picked), dtype=np.int32), [len(rows) for rows in picked])
        self._row = np.concatenate(picked)
        self.words = np.concatenate([source.words[rows] for source, rows in zip(self._sources, picked, strict=True)])
        self.bytes = sum(source.bytes for source in self._sources)
        self.sizes = [len(rows) for rows in picked]

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """An encoded row, and under `bad_rows` those that were passed over on the way to it.

        The place of a bad row is taken by one that seed and row decide.

        Raises:
            RequestError: so many rows are bad in a row that the data must be wrong as a whole.
        """
        draw = np.random.default_rng([self._seed, row])
        bad: list[BadRow] = []
        while len(bad) < MAX_REPLACEMENTS:
            try:
                return {**self.encoded(row), "bad_rows": bad}
            except BadRowError as error:
                bad.append(BadRow(row, error.reason, error.detail, self.where(row)))
                row = int(draw.integers(len(self)))
        raise RequestError(
            f"{MAX_REPLACEMENTS} rows in turn cannot be used; the last: {bad[-1].where}: {bad[-1].reason}, "
            f"{bad[-1].detail}. Look at the files of data.sources."
        )

    def encoded(self, row: int) -> dict[str, Any]:
        """Raises BadRowError."""
        return self._encoder(self._source_of(row).sample(int(self._row[row])))

    def where(self, row: int) -> str:
        """The row's place in the files."""
        return self._source_of(row).where(int(self._row[row]))

    def look(self) -> None:
        """Read a few rows of every source.

        Raises:
            RequestError: none of a source's rows can be used, as with a wrong folder or format.
        """
        first = 0
        for size in self.sizes:
            rows = np.unique(np.linspace(first, first + size - 1, min(size, LOOKED_AT)).astype(int))
            found = [self._fault(int(row)) for row in rows]
            if all(found):
                raise RequestError(f"None of the {len(rows)} rows looked at can be used; the first: {found[0]}")
            first += size

    def _fault(self, row: int) -> str | None:
        try:
            self.encoded(row)
        except BadRowError as error:
            return f"{self.where(row)}: {error.reason}, {error.detail}. See data.sources."
        return None

    def _source_of(self, row: int) -> Source:
        return self._sources[int(self._source[row])]


def _picked(count: int, limit: int | None, seed: int, number: int) -> np.ndarray:
    """Row numbers of one source, rising."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng([seed, number]).choice(count, limit, replace=False))


class RowCollator:
    """A collator that keeps the reports of bad rows beside the batch."""

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {**self._collate(rows), "bad_rows": [bad for row in rows for bad in row["bad_rows"]]}
