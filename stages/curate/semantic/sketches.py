"""Short forms of all rows, made once, that pass by most pairs whenever two rows of different clusters meet."""

from collections.abc import Iterator, Sequence

import numpy as np

from stages.curate.semantic.bounds import DIRECTIONS, Bounds, leading_directions
from stages.curate.vectors import Vectors

_SAMPLE = 4096
_SIDE = 256
"""Of the sampled meetings."""
_FALSE_SHARE = 0.006
"""Of pairs that sketches may let pass though they are not close; above it, whole rows are quicker."""
_FEW = 256
"""Pairs that are worth no second thought."""
_ROWS, _BASE = 1024, 4096
"""Sides of a product."""

Meeting = tuple[np.ndarray, np.ndarray]
"""Rows, and those that each of them is held against."""


def sketch_directions(vectors: Vectors, meetings: Sequence[Meeting], tau: float) -> np.ndarray:
    """Orthonormal directions by which most pairs of rows that meet are passed by: float64 of (d, 60), or of (d, 0)
    where there are none that serve.

    Args:
        vectors: n rows, like ones together.
        meetings: some of those that are to come.
    """
    n, d = vectors.stored.shape
    none = np.empty((d, 0))
    if d <= DIRECTIONS:
        return none
    found = leading_directions(vectors.unit(np.unique(np.linspace(0, n - 1, _SAMPLE).astype(np.int64))))
    bounds = Bounds(tau, False, directions=found)
    shares = []
    for meeting in meetings:
        one, other = (vectors.unit(np.sort(rows[:_SIDE])) for rows in meeting)
        passed = bounds.left(one).numpy() @ bounds.right(bounds.left(other)).numpy().T > 0
        shares.append((passed & (one @ other.T <= tau)).mean())
    return found if np.median(shares or [1]) <= _FALSE_SHARE else none


def sketches_of(vectors: Vectors, rows: slice, directions: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 operands, int16 of (rows, 64); they hold for every tau."""
    import torch

    bounds = Bounds(1, True, directions=directions)
    out = np.empty((rows.stop - rows.start, DIRECTIONS + 4), np.int16)
    for start in range(rows.start, rows.stop, _ROWS):
        part = slice(start, min(start + _ROWS, rows.stop))
        out[part.start - rows.start : part.stop - rows.start] = (
            bounds.left(vectors.unit(part)).view(torch.int16).numpy()
        )
    return out


class Sketches:
    """Says which pairs of rows may be close. Products of so short rows are taken on the CPU whatever the device.

    Args:
        bits: of all rows, from `sketches_of`; may be memory-mapped.
        directions: that they were made with.
        tau: cosine above which rows are close.
    """

    def __init__(self, bits: np.ndarray, directions: np.ndarray, tau: float) -> None:
        self._bits = bits
        self._bounds = Bounds(tau, False, directions=directions)

    def candidates(self, asking: np.ndarray, answering: np.ndarray) -> Iterator[tuple[Meeting, Meeting]]:
        """All close pairs of some rows with others, and a few that are not, part by part. Memory: 40 MB.

        Yields:
            Pairs, by row number, and no meeting; or, where most of what passes would not be close, no pairs and the
            part of the meeting that whole rows had better decide.
        """
        import torch

        none = np.empty(0, np.int64), np.empty(0, np.int64)
        for base in range(0, len(answering), _BASE):
            others = answering[base : base + _BASE]
            right = self._bounds.right(torch.from_numpy(self._left(others))).numpy().T
            for start in range(0, len(asking), _ROWS):
                some = asking[start : start + _ROWS]
                passed = self._left(some) @ right > 0
                count = np.count_nonzero(passed)
                if count > max(_FEW, _FALSE_SHARE * passed.size):
                    yield none, (some, others)
                elif count:
                    a, b = np.divmod(np.flatnonzero(passed), len(others))
                    yield (some[a], others[b]), none

    def _left(self, rows: np.ndarray) -> np.ndarray:
        """Operands, float32 of (m, 64): the upper halves of its bits are those of bfloat16."""
        return (self._bits[rows].astype(np.int32) << 16).view(np.float32)
