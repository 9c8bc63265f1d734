"""What the searches say about all rows, as tables and as sentences."""

import numpy as np
import pyarrow as pa

from schemas.ledger import Drop, Reason
from schemas.tables import DUPLICATES

_REASONS = {
    "exact": Reason.DUPLICATE_EXACT,
    "perceptual": Reason.DUPLICATE_PERCEPTUAL,
    "semantic": Reason.DUPLICATE_SEMANTIC,
}
_KINDS = np.array(list(_REASONS))
_PERCEPTUAL, _SEMANTIC = 1, 2


class Verdict:
    """Which row suppressed which, as row numbers.

    Attributes:
        by: the suppressor of each row, -1 where the row is kept.
        kind: index into exact, perceptual, semantic, where suppressed.
        distance: cosine of semantic, Hamming distance of perceptual duplicates; NaN else.
    """

    def __init__(self, rows: int) -> None:
        self.by = np.full(rows, -1, np.int64)
        self.kind = np.zeros(rows, np.int8)
        self.distance = np.full(rows, np.nan, np.float32)

    def record(self, rows: np.ndarray, kind: str, by: np.ndarray, distance: np.ndarray | None = None) -> np.ndarray:
        """Take in what one search said about `rows` (`by` counts within them); returns the rows it kept."""
        gone = by >= 0
        self.by[rows[gone]] = rows[by[gone]]
        self.kind[rows[gone]] = list(_REASONS).index(kind)
        if distance is not None:
            self.distance[rows[gone]] = distance[gone]
        return rows[~gone]

    def groups(self) -> np.ndarray:
        """The kept row at the end of each row's chain of suppressors; each look goes twice as far along it."""
        root = np.where(self.by < 0, np.arange(len(self.by)), self.by)
        while True:
            further = root[root]
            if np.array_equal(further, root):
                return root
            root = further


def duplicates(uid: np.ndarray, verdict: Verdict, group: np.ndarray, gone: np.ndarray) -> pa.Table:
    """Rows of schemas.tables.DUPLICATES.

    Args:
        uid: of all rows, bytes of (n,).
        group: of all rows, as row numbers.
        gone: numbers of the rows that the table is about.
    """
    kinds, distance = verdict.kind[gone], verdict.distance[gone]
    bits = np.nan_to_num(distance).astype(np.int16)
    columns = {
        "uid": uid[gone].astype(str),
        "kept_uid": uid[verdict.by[gone]].astype(str),
        "group": uid[group[gone]].astype(str),
        "kind": _KINDS[kinds],
        "cosine": pa.array(distance, pa.float32(), mask=kinds != _SEMANTIC),
        "hamming": pa.array(bits, pa.int16(), mask=kinds != _PERCEPTUAL),
    }
    return pa.table({name: pa.array(column) for name, column in columns.items()}, schema=DUPLICATES)


def ledger_rows(table: pa.Table, urls: pa.ChunkedArray) -> list[Drop]:
    """One for each row of `duplicates`."""
    columns = [table.column(name).to_pylist() for name in DUPLICATES.names]
    return [
        Drop(uid, url, _REASONS[kind], _sentence(kept, group, cosine, hamming))
        for uid, kept, group, kind, cosine, hamming, url in zip(*columns, urls.to_pylist(), strict=True)
    ]


def _sentence(kept: str, group: str, cosine: float | None, hamming: int | None) -> str:
    text = f"of {kept}"
    if cosine is not None:
        text += f", cosine {cosine:.2f}"
    if hamming is not None:
        text += f", {hamming} bits apart"
    return text if group == kept else f"{text}; {group} stays"
