"""Comparing rows tile by tile: cheap bounds pass by most pairs, the exact cosine decides the others."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stages.curate.semantic.bounds import DIRECTIONS, Bounds, false_share, fast_bfloat16, leading_directions, product
from stages.curate.semantic.cosine import PAIRS, dot_error, dots
from stages.curate.vectors import Vectors

if TYPE_CHECKING:
    import torch

LISTED = 1 << 18
"""Pairs listed at once."""

_SAMPLE = 512
_SHORT_FROM = 3 << 20
"""Pairs below which finding directions costs more than shorter operands save."""
_FALSE_SHARE = {True: 0.001, False: 0.004}
"""By whether products are fast: above it, looking at pairs that short operands let pass costs more than they save."""


@dataclass(frozen=True)
class Tiling:
    """How much is computed and kept at once; results are the same for all.

    Attributes:
        rows, base: the longest sides of a tile; base at most rows.
        step: sides are multiples of it, as oneDNN compiles and keeps a kernel of half a megabyte for each shape that it
            meets.
        kept: bytes of operands and unit rows that may be kept.
    """

    rows: int
    base: int
    step: int
    kept: int

    @classmethod
    def within(cls, memory_mb: float, bounds: Bounds) -> "Tiling":
        """Short operands are worth larger tiles, as the rest of the work is the same."""
        eighths = int(np.clip(memory_mb / 100 * 8, 1, 8))
        step = 256 if bounds.short else 128
        return cls(step * eighths, max(step, step // 4 * eighths // step * step), step, int(memory_mb * 2**20 * 0.45))

    def padded(self, rows: int) -> int:
        return -(-rows // self.step) * self.step


class Prepared:
    """Rows ready to be compared: operands and float32 unit rows, kept where they fit, else made anew from the storage.

    Args:
        rows: row numbers in `vectors`, ascending; positions, everywhere else, count in them.
        tiling: of the screen; its `kept` is for these rows alone.
    """

    def __init__(self, vectors: Vectors, rows: np.ndarray, bounds: Bounds, tiling: Tiling) -> None:
        self.vectors, self.rows = vectors, rows
        self._bounds, self._tiling = bounds, tiling
        self._left: torch.Tensor | None = None
        self._unit: np.ndarray | None = None
        n, d = len(rows), vectors.stored.shape[1]
        operands = (n + tiling.step) * bounds.row_bytes(d)
        if operands > tiling.kept:
            return
        left = bounds.zeros(n + tiling.step, d)
        unit = np.empty((n, d), np.float32) if operands + n * d * 4 <= tiling.kept else None
        for start in range(0, n, PAIRS):
            some = rows[start : start + PAIRS]
            block = vectors.unit(_plain(some))
            left[start : start + len(some)] = bounds.left(block)
            if unit is not None:
                unit[start : start + len(some)] = block
        self._left, self._unit = left, unit

    def __len__(self) -> int:
        return len(self.rows)

    def unit(self, at: np.ndarray) -> np.ndarray:
        """float32 unit rows, (m, d)."""
        return self.vectors.unit(self.rows[at]) if self._unit is None else self._unit[at]

    def left(self, at: np.ndarray) -> "torch.Tensor":
        """Operands of the rows at some positions, then any others up to a multiple of the tiling's step."""
        import torch

        if self._left is not None:
            plain = _plain(at)
            if isinstance(plain, slice):
                return self._left[plain.start : plain.start + self._tiling.padded(len(at))]
            at = np.concatenate([at, np.zeros(self._tiling.padded(len(at)) - len(at), at.dtype)])
            return self._left.index_select(0, torch.from_numpy(at).to(self._left.device))
        operands = self._bounds.zeros(self._tiling.padded(len(at)), self.vectors.stored.shape[1])
        for start in range(0, len(at), PAIRS):
            part = at[start : start + PAIRS]
            operands[start : start + len(part)] = self._bounds.left(self.unit(part))
        return operands

    def right(self, at: np.ndarray) -> "torch.Tensor":
        """The same, to stand on the right of a product."""
        return self._bounds.right(self.left(at))


def _plain(at: np.ndarray) -> np.ndarray | slice:
    """Ascending positions as a slice where they follow one another."""
    if len(at) and at[-1] - at[0] == len(at) - 1:
        return slice(int(at[0]), int(at[-1]) + 1)
    return at


class Screen:
    """Compares rows of `a` with rows of `b`, at most tiling.rows x tiling.base at once.

    Args:
        a, b: their operands are of the same bounds, for `tau`.
    """

    def __init__(self, a: Prepared, b: Prepared, tau: float, bounds: Bounds, tiling: Tiling) -> None:
        import torch

        self.a, self.b, self.tau, self.tiling = a, b, tau, tiling
        self._error = dot_error(a.vectors.stored.shape[1])
        most = tiling.padded(min(tiling.rows, len(a))) * tiling.padded(min(tiling.base, len(b)))
        self._out = torch.empty(most, dtype=bounds.dtype)

    def above(self, at: np.ndarray, right: "torch.Tensor", columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Which rows may be close to any of the first `columns` of an operand: their places in `at` (int64 of (hits,)),
        and to which (bool of (hits, columns))."""
        tile = _signs(product(self.a.left(at), right, self._out))[: len(at), :columns]
        hits = (tile.amax(1) > 0).nonzero()[:, 0]
        return hits.cpu().numpy(), _positive(tile if len(hits) == len(at) else tile[hits])

    def all_above(self, at: np.ndarray, right: "torch.Tensor", columns: int) -> np.ndarray:
        """Which rows may be close to which of the first `columns` of an operand: bool of (m, columns)."""
        return _positive(_signs(product(self.a.left(at), right, self._out))[: len(at), :columns])

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


def _signs(tile: "torch.Tensor") -> "torch.Tensor":
    """Numbers that are positive where those of a tile are, of a kind that is quick to look through."""
    import torch

    return tile.view(torch.int16) if tile.dtype == torch.bfloat16 else tile


def _positive(tile: "torch.Tensor") -> np.ndarray:
    """bool, of the same shape."""
    positive: np.ndarray = tile.numpy() > 0 if tile.device.type == "cpu" else (tile > 0).cpu().numpy()
    return positive


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
    if a.stored.shape[1] < 3 * DIRECTIONS or pairs < _SHORT_FROM:
        return whole
    sides = ((a, rows), (b, base)) if a is not b else ((a, rows),)
    size = _SAMPLE // len(sides)
    unit = np.concatenate([side.unit(some[:: -(-len(some) // size)]) for side, some in sides])
    short = Bounds(tau, fast, device, leading_directions(unit))
    return short if false_share(short, unit, tau) < _FALSE_SHARE[fast] else whole
