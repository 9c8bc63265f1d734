"""Perceptual duplicates: 64-bit hashes within a Hamming radius.

The search is a band join of our own and not a FAISS binary index: `benchmarks.curation.hashes` measures both.
IndexBinaryMultiHash with four bands of 16 bits and one flip is exact at radius 6, and looks up and walks its buckets
pair by pair; IndexBinaryFlat compares everything.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np

_BITS = 64
_LEAF = 1024
"""Rows that are settled by comparing all with all."""
_CHUNK = 1 << 17
"""Pairs, and cells of a comparison of all with all, held at once."""
_WIDEST = 22
"""Bits of a band at most: its table has 2^bits starts."""
_PROBE, _PAIR, _CELL = 10.0, 11.0, 0.7
"""ns for one look into a band's table, one pair found there, and one pair of a comparison of all with all; they choose
between ways that give the same result."""


def perceptual_duplicates(hashes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Greedy, in keep order: a row goes when a row that is kept lies within `radius` bits of it.

    Rows that went suppress nobody, so every removed row has a kept one within the radius. Equal hashes share one fate.
    Time grows with the number of different hashes that are kept; any number of equal or nearly equal ones is cheap.
    Memory: about 100 bytes for every row, and some MB.

    Args:
        hashes: uint64 of (n,).
        radius: bits, 0 to 63.

    Returns:
        The earliest kept row within the radius of each row that goes (int64 of (n,), -1 where the row is kept), and
        their distance in bits (int16 of (n,), 0 where kept).
    """
    hashes = np.asarray(hashes, np.uint64)
    values, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rows, values = first[order], values[order]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    by = rows[_suppressors(values, radius)[place][inverse]]
    distance = np.bitwise_count(hashes ^ hashes[by]).astype(np.int16)
    by[by == np.arange(len(hashes))] = -1
    return by, distance


def _suppressors(values: np.ndarray, radius: int) -> np.ndarray:
    """The earliest kept value within the radius of each value, itself where it is kept; all values differ."""
    by = np.arange(len(values))

    def kept(members: np.ndarray) -> np.ndarray:
        """Those of the members that stay; none of them lies near a kept value that stands before the first."""
        if len(members) <= _LEAF:
            return _leaf(values, members, radius, by)
        half = len(members) // 2
        before, rest = kept(members[:half]), members[half:]
        found = earliest_near(values[rest], values[before], radius)
        near = found >= 0
        by[rest[near]] = before[found[near]]
        return np.concatenate([before, kept(rest[~near])])

    kept(by.copy())
    return by


def _leaf(values: np.ndarray, members: np.ndarray, radius: int, by: np.ndarray) -> np.ndarray:
    part = values[members]
    near = np.tril(np.bitwise_count(part[:, None] ^ part) <= radius, -1)
    stays = np.logical_not(near.any(1))
    for row in np.flatnonzero(~stays).tolist():
        suppressors = near[row] & stays
        stays[row] = not suppressors.any()
        if not stays[row]:
            by[members[row]] = members[suppressors.argmax()]
    return members[stays]


def earliest_near(queries: np.ndarray, base: np.ndarray, radius: int) -> np.ndarray:
    """The first place in `base` of a hash within `radius` bits of each query; -1 where there is none.

    Args:
        queries, base: uint64 of (n,) and (m,).

    Returns:
        int64 of (n,).
    """
    bands = _bands(radius, len(base))
    dense = _CELL * len(base)
    if sum(band.cost(len(base)) for band in bands) < dense:
        tables = [_Table(base, band) for band in bands]
        # skewed hashes fill few buckets: a sample says how many pairs there really are
        sample = queries[:: max(len(queries) // 1024, 1)]
        if sum(table.cost(sample) for table in tables) < dense:
            found = np.full(len(queries), len(base))
            for table in tables:
                table.search(queries, radius, found)
            found[found == len(base)] = -1
            return found
    return _compared(queries, base, radius)


def _compared(queries: np.ndarray, base: np.ndarray, radius: int) -> np.ndarray:
    """`earliest_near` by comparing all with all."""
    found = np.full(len(queries), -1)
    width = 2048
    height = _CHUNK // width
    for top in range(0, len(queries), height):
        open_ = np.arange(top, min(top + height, len(queries)))
        for left in range(0, len(base), width):
            near = np.bitwise_count(queries[open_, None] ^ base[left : left + width]) <= radius
            hit = near.any(1)
            if hit.any():
                found[open_[hit]] = left + near[hit].argmax(1)
                open_ = open_[~hit]
                if not len(open_):
                    break
    return found


@dataclass(frozen=True)
class _Band:
    """Bits of a hash, and in how many of them a pair may differ.

    Attributes:
        shift, width: the bits `shift` to `shift + width` - 1.
        flips: bits.
    """

    shift: int
    width: int
    flips: int

    def keys(self, hashes: np.ndarray) -> np.ndarray:
        keys = (hashes >> np.uint64(self.shift)) & np.uint64((1 << self.width) - 1)
        return keys.astype(np.uint16 if self.width <= 16 else np.uint32)  # numpy sorts 16 bits by radix

    def masks(self) -> list[int]:
        """What may be flipped."""
        return [
            sum(1 << bit for bit in bits)
            for flips in range(self.flips + 1)
            for bits in itertools.combinations(range(self.width), flips)
        ]

    def cost(self, rows: int) -> float:
        """ns for each query against `rows` hashes that are spread evenly."""
        return _neighbours(self.width, self.flips) * (_PROBE + _PAIR * rows / 2**self.width)


class _Table:
    """Hashes by their key in a band."""

    def __init__(self, base: np.ndarray, band: _Band) -> None:
        self.band = band
        keys = band.keys(base)
        self.order = np.argsort(keys, kind="stable")
        self.sorted = base[self.order]
        self.starts = np.zeros((1 << band.width) + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=1 << band.width), out=self.starts[1:])

    def cost(self, queries: np.ndarray) -> float:
        """ns for each query, from queries that stand for all."""
        keys = self.band.keys(queries)
        probed = [keys ^ mask for mask in self.band.masks()]
        pairs = sum(int((self.starts[1:][key] - self.starts[key]).sum()) for key in probed)
        return _PROBE * len(probed) + _PAIR * pairs / max(len(queries), 1)

    def search(self, queries: np.ndarray, radius: int, found: np.ndarray) -> None:
        """Lower `found` to the first place of a hash near each query whose keys are within the band's flips."""
        keys = self.band.keys(queries)
        numbers = np.argsort(keys, kind="stable")  # neighbours in key look at neighbouring memory
        queries, keys = queries[numbers], keys[numbers]
        for mask in self.band.masks():
            probed = keys ^ mask
            first = self.starts[probed]
            count = self.starts[1:][probed] - first
            filled = np.flatnonzero(count)
            self._look(queries, numbers, filled, first[filled], count[filled], radius, found)

    def _look(
        self,
        queries: np.ndarray,
        numbers: np.ndarray,
        filled: np.ndarray,
        first: np.ndarray,
        count: np.ndarray,
        radius: int,
        found: np.ndarray,
    ) -> None:
        """Compare the queries at `filled` with `count` hashes each, from `first` on."""
        ends = np.cumsum(count)
        cuts = np.searchsorted(ends, np.arange(0, int(ends[-1]) if len(ends) else 0, _CHUNK))
        for lo, hi in itertools.pairwise([*np.unique(cuts).tolist(), len(ends)]):
            counts = count[lo:hi]
            at = np.arange(counts.sum())
            at += np.repeat(first[lo:hi] - (ends[lo:hi] - counts - (ends[lo] - counts[0])), counts)
            bits = np.bitwise_count(np.repeat(queries[filled[lo:hi]], counts) ^ self.sorted[at])
            near = np.flatnonzero(bits <= radius)
            if len(near):
                query = lo + np.searchsorted(ends[lo:hi] - (ends[lo] - counts[0]), near, side="right")
                np.minimum.at(found, numbers[filled[query]], self.order[at[near]])


@cache
def _neighbours(width: int, flips: int) -> int:
    return sum(math.comb(width, flip) for flip in range(flips + 1))


@cache
def _bands(radius: int, rows: int) -> list[_Band]:
    """The cheapest bands for evenly spread hashes.

    Let band i allow f_i flips. Two hashes that differ in more than f_i bits of every band differ in sum(f_i + 1) bits:
    where that is radius + 1, pairs within the radius agree on a band but for its flips (pigeonhole principle).
    """
    best: list[_Band] = []
    lowest = math.inf
    for count in range(1, radius + 2):
        flips, more = divmod(radius + 1, count)
        flips -= 1  # `more` bands allow one flip more
        for wide in range(1, _WIDEST + 1):
            narrow = min((_BITS - more * wide) // (count - more), _WIDEST)
            if narrow < 1:
                break
            widths = [wide] * more + [narrow] * (count - more)
            shifts = itertools.accumulate(widths, initial=0)
            bands = [
                _Band(shift, width, flips + (i < more))
                for i, (shift, width) in enumerate(zip(shifts, widths, strict=False))
            ]
            cost = sum(band.cost(rows) for band in bands)
            if cost < lowest:
                best, lowest = bands, cost
    return best
