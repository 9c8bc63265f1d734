"""Short forms of all rows, made once, that pass by most pairs whenever two rows of different clusters meet."""

from collections.abc import Iterator

import numpy as np

from stages.curate.semantic.bounds import DIRECTIONS, Bounds, false_share, leading_directions
from stages.curate.vectors import Vectors

_SAMPLE = 4096
_NEIGHBOURS, _PLACES = 256, 16
_FALSE_SHARE = 0.006
"""Of neighbours that sketches may let pass; above it, whole rows are quicker."""
_ROWS, _BASE = 1024, 4096
"""Sides of a product."""


def sketch_directions(vectors: Vectors, tau: float) -> np.ndarray:
    """Orthonormal directions by which most pairs of rows that stand beside one another are passed by: float64 of
    (d, 60), or of (d, 0) where there are none that serve.

    Args:
        vectors: n rows, like ones together.
    """
    n, d = vectors.stored.shape
    none = np.empty((d, 0))
    if d <= DIRECTIONS:
        return none
    found = leading_directions(vectors.unit(np.unique(np.linspace(0, n - 1, _SAMPLE).astype(np.int64))))
    bounds = Bounds(tau, True, directions=found)
    starts = np.linspace(0, max(0, n - _NEIGHBOURS), _PLACES).astype(np.int64)
    share = [false_share(bounds, vectors.unit(slice(start, start + _NEIGHBOURS)), tau) for start in starts]
    return found if np.mean(share) <= _FALSE_SHARE else none


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

    def candidates(self, asking: np.ndarray, answering: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All close pairs of some rows with others, by row number, and a few that are not. Memory: 40 MB."""
        import torch

        for base in range(0, len(answering), _BASE):
            others = answering[base : base + _BASE]
            right = self._bounds.right(torch.from_numpy(self._left(others))).numpy().T
            for start in range(0, len(asking), _ROWS):
                some = asking[start : start + _ROWS]
                hits = np.flatnonzero(self._left(some) @ right > 0)
                if len(hits):
                    a, b = np.divmod(hits, len(others))
                    yield some[a], others[b]

    def _left(self, rows: np.ndarray) -> np.ndarray:
        """Operands, float32 of (m, 64): the upper halves of its bits are those of bfloat16."""
        return (self._bits[rows].astype(np.int32) << 16).view(np.float32)
