"""Comparing rows tile by tile: cheap bounds pass by most pairs, the exact cosine decides the others."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.curate.semantic.bounds import DIRECTIONS, Bounds, false_share, fast_bfloat16, leading_directions, product
from stages.curate.vectors import Vectors

if TYPE_CHECKING:
    import torch

PAIRS = 1024
"""Pairs whose rows are gathered at once."""
LISTED = 1 << 18
"""Pairs listed at once."""

_PAD = 256
"""Operands come in multiples of so many rows, as oneDNN compiles and keeps a kernel for each shape that it meets."""
_SAMPLE = 1024
_SKETCHED_FROM = 3 << 20
"""Pairs below which finding directions costs more than shorter operands save."""
_FALSE_SHARE = 0.006
"""Above it, looking at pairs that the short operands let pass costs more than whole rows do."""


def exact_cosines(a: Vectors, rows: np.ndarray, b: Vectors, columns: np.ndarray) -> np.ndarray:
    """The cosine by definition: the float64 dot product of the float32 unit rows, at most 1. float64 of (pairs,).

    The products are exact in float64 and each pair is summed by itself, so its cosine is the same wherever and with
    whatever other pairs it is computed.
    """
    cosines = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        cosines[part] = dots(a.unit(rows[part]), b.unit(columns[part]))
    return cosines


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    products = a.astype(np.float64)
    products *= b
    return np.minimum(products.sum(1), 1)


def dot_error(d: int) -> float:
    """How far a float32 dot product of unit rows, summed in any order, may be from the cosine (Higham, Accuracy and
    Stability of Numerical Algorithms, 3.1); the rows' lengths are 1 to 3e-7."""
    return (d + 2) * 2.0**-24 * 1.01


@dataclass(frozen=True)
class Tiling:
    """How much is computed and kept at once; results are the same for all.

    Attributes:
        rows, base: the sides of a tile, multiples of 256.
        kept: bytes of operands and unit rows that may be kept.
    """

    rows: int
    base: int
    kept: int

    @classmethod
    def within(cls, memory_mb: float) -> "Tiling":
        side = int(np.clip(memory_mb / 100 * 8, 1, 8)) * _PAD
        return cls(side, max(side // 2, _PAD), int(memory_mb * 2**20 * 0.45))


class Prepared:
    """Rows ready to be compared: operands and float32 unit rows, kept where they fit, else made anew from the storage.

    Args:
        rows: row numbers in `vectors`; positions, everywhere else, count in them.
        kept: bytes that may be kept.
    """

    def __init__(self, vectors: Vectors, rows: np.ndarray, bounds: Bounds, kept: int) -> None:
        import torch

        self.vectors, self.rows = vectors, rows
        self._bounds = bounds
        self._left: torch.Tensor | None = None
        self._unit: np.ndarray | None = None
        n, d = len(rows), vectors.stored.shape[1]
        operands = n * bounds.row_bytes(d)
        if operands > kept:
            return
        left = bounds.empty(n, d)
        unit = np.empty((n, d), np.float32) if operands + n * d * 4 <= kept else None
        for start in range(0, n, PAIRS):
            part = slice(start, start + PAIRS)
            block = vectors.unit(rows[part])
            left[part] = bounds.left(block)
            if unit is not None:
                unit[part] = block
        self._left, self._unit = left, unit

    def __len__(self) -> int:
        return len(self.rows)

    def unit(self, at: np.ndarray) -> np.ndarray:
        """float32 unit rows, (m, d)."""
        return self.vectors.unit(self.rows[at]) if self._unit is None else self._unit[at]

    def left(self, at: np.ndarray) -> "torch.Tensor":
        """Operands of the rows at some positions, then zeros up to a multiple of 256 rows."""
        import torch

        operands = self._bounds.empty(-(-len(at) // _PAD) * _PAD, self.vectors.stored.shape[1])
        operands[len(at) :] = 0
        if self._left is not None:
            torch.index_select(self._left, 0, torch.from_numpy(at).to(self._left.device), out=operands[: len(at)])
        else:
            for start in range(0, len(at), PAIRS):
                part = at[start : start + PAIRS]
                operands[start : start + len(part)] = self._bounds.left(self.unit(part))
        return operands

    def right(self, at: np.ndarray) -> "torch.Tensor":
        """The same, to stand on the right of a product."""
        return self._bounds.right(self.left(at))


class Screen:
    """Compares rows of `a` with rows of `b`, at most tiling.rows x tiling.base at once.

    Args:
        a, b: their operands are of the same bounds, for `tau`.
    """

    def __init__(self, a: Prepared, b: Prepared, tau: float, bounds: Bounds, tiling: Tiling) -> None:
        import torch

        self.a, self.b, self.tau, self.tiling = a, b, tau, tiling
        self._error = dot_error(a.vectors.stored.shape[1])
        most = [-(-min(side, len(rows)) // _PAD) * _PAD for side, rows in ((tiling.rows, a), (tiling.base, b))]
        self._out = torch.empty(most[0] * most[1], dtype=bounds.dtype)

    def above(self, at: np.ndarray, right: "torch.Tensor", columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Which rows may be close to any of the first `columns` of an operand: their places in `at` (int64 of (hits,)),
        and to which (bool of (hits, columns))."""
        import torch

        tile = product(self.a.left(at), right, self._out)[: len(at), :columns]
        # as integers the numbers of bfloat16 order as they are, but for which of two negative ones is less
        top = (tile.view(torch.int16) if tile.dtype == torch.bfloat16 else tile).amax(1)
        hits = torch.nonzero(top > 0)[:, 0]
        passed = (tile if len(hits) == len(at) else tile[hits]) > 0
        return hits.cpu().numpy(), passed.cpu().numpy()

    def all_above(self, at: np.ndarray, right: "torch.Tensor", columns: int) -> np.ndarray:
        """Which rows may be close to which of the first `columns` of an operand: bool of (m, columns)."""
        passed: np.ndarray = product(self.a.left(at), right, self._out)[: len(at), :columns].gt(0).cpu().numpy()
        return passed

    def close(self, at: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Whether each row of `a` is close to the row of `b` beside it: bool of (pairs,)."""
        close = np.empty(len(at), bool)
        for start in range(0, len(at), PAIRS):
            part = slice(start, start + PAIRS)
            close[part] = self._decide(self.a.unit(at[part]), self.b.unit(base[part]))
        return close

    def _decide(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        cosines = np.einsum("ij,ij->i", a, b)
        close = cosines > self.tau
        unsure = np.abs(cosines - self.tau) <= self._error
        if unsure.any():
            close[unsure] = dots(a[unsure], b[unsure]) > self.tau
        return close

    def first_close(self, passed: np.ndarray, at: np.ndarray, base: np.ndarray) -> np.ndarray:
        """For each of some rows the first of `base` that it is close to, -1 for none: int64 of (m,).

        Args:
            passed: which may be close; bool of (m, len(base)).
        """
        first = passed.argmax(1)
        rows = np.flatnonzero(passed[np.arange(len(at)), first])
        found = np.full(len(at), -1)
        close = self.close(at[rows], base[first[rows]])
        found[rows[close]] = first[rows[close]]
        rows = rows[~close]
        passed = passed[rows]
        for part in listable(passed):
            self._next_close(passed[part], rows[part], at, base, found)
        return found

    def _next_close(
        self, passed: np.ndarray, rows: np.ndarray, at: np.ndarray, base: np.ndarray, found: np.ndarray
    ) -> None:
        """`first_close` of rows whose first candidate was not close, into `found`."""
        place, column = np.nonzero(passed)
        number = np.arange(len(place)) - np.searchsorted(place, place)  # of a pair among its row's
        looked, quota = 1, 2
        while True:
            turn = (number >= looked) & (number < looked + quota)
            if not turn.any():
                break
            of, to = rows[place[turn]], column[turn]
            close = self.close(at[of], base[to])
            of, to = of[close][::-1], to[close][::-1]
            found[of] = to  # the first of a row is written last
            left = found[rows[place]] < 0
            place, column, number = place[left], column[left], number[left]
            looked, quota = looked + quota, quota * 4


def listable(passed: np.ndarray) -> list[slice]:
    """Ranges of rows that have at most LISTED candidates each, or are of one row."""
    if passed.size <= LISTED:
        return [slice(0, len(passed))] if len(passed) else []
    counts = np.concatenate([[0], np.count_nonzero(passed, axis=1).cumsum()])
    ranges, start = [], 0
    while start < len(passed):
        stop = max(start + 1, int(np.searchsorted(counts, counts[start] + LISTED, side="right")) - 1)
        ranges.append(slice(start, stop))
        start = stop
    return ranges


def bounds_for(
    a: Vectors, rows: np.ndarray, b: Vectors, base: np.ndarray, tau: float, pairs: int, device: str
) -> Bounds:
    """Those that take the least time for so many pairs, as a sample shows.

    Short operands pass by more pairs a second; but where many rows lie near the threshold of each other (a low `tau`, a
    cluster of much alike) they let too many through.
    """
    fast = fast_bfloat16(device)
    whole = Bounds(tau, fast, device)
    if a.stored.shape[1] < 3 * DIRECTIONS or pairs < _SKETCHED_FROM:
        return whole
    sides = ((a, rows), (b, base)) if a is not b else ((a, rows),)
    size = _SAMPLE // len(sides)
    unit = np.concatenate([side.unit(some[:: -(-len(some) // size)]) for side, some in sides])
    short = Bounds(tau, fast, device, leading_directions(unit))
    return short if false_share(short, unit, tau) < _FALSE_SHARE else whole
