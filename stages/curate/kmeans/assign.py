"""The nearest centroids of any rows, exactly: by the cosine's definition, whatever the tiles, threads and device."""

import threading
import warnings
from typing import TYPE_CHECKING

import numpy as np

from stages.curate.kmeans.pool import Map
from stages.curate.kmeans.torch_engine import ordered
from stages.curate.semantic.cosine import exact_cosines
from stages.curate.vectors import Vectors

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_ROWS = 4096
SCORES = 1 << 24
"""Half-precision products that each thread holds."""
GROUP = 8
"""Columns whose greatest score stands for them in the search for the m-th greatest."""
FEW = 32
"""So few centroids are all candidates."""
WIDE = 64
"""Candidates of a row that is sorted along with others."""


class Nearest:
    """Looks for the centroids nearest to rows.

    Half-precision products find each row's candidates: all centroids whose score, by a rigorous bound of its error,
    might be among the m greatest. float64 products order those. Where even these lie closer than their own error (ties
    above all), or the float32 cosine hangs on it, `exact_cosines` decides, and the lower number goes first.

    Memory: 10 bytes a centroid and dimension on the device, and in each thread about 60 MB.

    Args:
        centroids: float32 of (k, d), unit vectors or zeros.
    """

    def __init__(self, centroids: np.ndarray, device: str = "cpu", run: Map = map) -> None:
        import torch

        self.device, self._run = device, run
        self._portable = device != "cpu"  # torch alone; on a CPU numpy and sparse products are faster
        self.centroids = np.ascontiguousarray(centroids)
        k, d = centroids.shape
        self._vectors = _as_they_are(self.centroids)
        self._double = torch.from_numpy(self.centroids).to(device).double()
        # What all centroids share orders nothing; without it scores are smaller, and so are their errors.
        centred = self._double - self._double.mean(0)
        self._low_type = torch.bfloat16 if device == "cpu" else torch.float16
        self._low = torch.zeros(-(-k // 64) * 64, d, dtype=self._low_type, device=device)  # few shapes of products
        self._low[:k] = centred
        self._error = float((self._low[:k].double() - centred).norm(dim=1).max())
        self._length = float(centred.norm(dim=1).max())
        self._unit = torch.finfo(self._low_type).eps / 2
        self._double_error = 2 * d * 2.0**-53
        self._held = threading.local()
        with warnings.catch_warnings(action="ignore"):  # torch says once that its sparse tensors are young
            torch.sparse_csr_tensor([0, 0], [], [], size=(1, 1))

    def search(self, vectors: Vectors, m: int) -> tuple[np.ndarray, np.ndarray]:
        """The m nearest centroids of each row, best first; all of them where there are fewer.

        Rows without direction get the first m centroids and cosines of 0.

        Returns:
            Numbers (int32) and cosines (float64 that a float32 holds), both of (n, min(m, k)).
        """
        n, k = len(vectors), len(self.centroids)
        m = min(m, k)
        numbers = np.empty((n, m), np.int32)
        cosines = np.empty((n, m))
        size = min(CHUNK_ROWS, max(256, SCORES // k), 1 << max(n - 1, 15).bit_length())

        def chunk(start: int) -> None:
            at = slice(start, min(start + size, n))
            rows = vectors.unit(at)
            lost = np.flatnonzero(vectors.scale[at] == 0) + start
            rows[lost - start] = self.centroids[0]  # as near to all, they would all be candidates
            numbers[at], cosines[at] = self._chunk(rows, m, size)
            numbers[lost], cosines[lost] = np.arange(m), 0

        for _ in self._run(chunk, range(0, n, size)):
            pass
        return numbers, cosines

    def _chunk(self, rows: np.ndarray, m: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        import torch

        x = torch.from_numpy(rows).to(self.device)
        if len(self.centroids) <= FEW:
            place, column = np.divmod(np.arange(len(rows) * len(self.centroids)), len(self.centroids))
        else:
            place, column = self._candidates(x, m, *self._buffers(size))
        return self._ranked(rows, m, place, column, self._dots(x, place, column))

    def _buffers(self, size: int) -> tuple["Tensor", "Tensor"]:
        """This thread's places for a chunk's rows in half precision, and for its scores."""
        import torch

        if getattr(self._held, "size", 0) != size:
            some = {"dtype": self._low_type, "device": self.device}
            self._held.size = size
            self._held.buffers = (
                torch.zeros(size, self._low.shape[1], **some),
                torch.empty(size, len(self._low), **some),
            )
        low, scores = self._held.buffers
        return low, scores

    def _candidates(self, x: "Tensor", m: int, low: "Tensor", scores: "Tensor") -> tuple[np.ndarray, np.ndarray]:
        """Row and centroid of every pair that might be among the row's m nearest, by row: int64 of (pairs,)."""
        import torch

        k, d = self.centroids.shape
        low[: len(x)] = x
        torch.mm(low, self._low.T, out=scores)
        scores[:, k:] = -torch.inf
        error = (x - low[: len(x)]).norm(dim=1)
        # |x.c - low_x.low_c| <= |x - low_x| |c| + |low_x| |c - low_c|; then what float32 sums, and these norms, lose
        bound = error * self._length + (1 + error) * self._error + (d + 8) * 2.0**-22
        scores = scores[: len(x)]
        if self._portable:
            return self._pairs_above(scores, bound, m)
        # Bits of bfloat16 compare as integers where they are not negative, as the greatest centred scores are.
        bits = scores.view(torch.int16).numpy()
        group = GROUP if k >= 2 * GROUP * m else 1
        best = _greatest(bits, group)
        place = best.shape[1] - m
        least = np.partition(best, place, axis=1)[:, place].copy()
        limit = self._limit(torch.from_numpy(least).view(torch.bfloat16), bound).view(torch.int16).numpy()
        if (least < 0).any() or (limit <= 0).any():
            ordered(bits)
            best = _greatest(bits, group)
            least = ordered(np.partition(best, place, axis=1)[:, place].copy())
            limit = self._limit(torch.from_numpy(least).view(torch.bfloat16), bound).view(torch.int16).numpy()
            limit = ordered(limit) - np.int16(1)  # a zero of either sign
        return _at_least(bits, best, limit, group)

    def _pairs_above(self, scores: "Tensor", bound: "Tensor", m: int) -> tuple[np.ndarray, np.ndarray]:
        limit = self._limit(scores.topk(m, dim=1).values[:, -1], bound)
        place, column = (scores >= limit[:, None]).nonzero(as_tuple=True)
        return place.cpu().numpy(), column.cpu().numpy()

    def _limit(self, least: "Tensor", bound: "Tensor") -> "Tensor":
        """The score that the m-th nearest centroid has at least, given m scores that are `least` or more.

        The m nearest have products, unrounded, of `least` less its rounding and twice the bound, or more; rounding
        keeps order.
        """
        exact = least.float()
        tiny = 2.0**-24  # the step of float16 below its normal numbers
        return (exact - exact.abs() * (self._unit * 1.01) - tiny - 2 * bound).to(self._low_type)

    def _dots(self, x: "Tensor", place: np.ndarray, column: np.ndarray) -> np.ndarray:
        """float64 products of pairs of a row and a centroid, at most 1: float64 of (pairs,)."""
        import torch

        if not self._portable:
            ends = np.searchsorted(place, np.arange(len(x) + 1))
            # A sampled product: of the whole matrix only the pairs, in one call and without copies of their rows.
            pairs = torch.sparse_csr_tensor(
                torch.from_numpy(ends),
                torch.from_numpy(column),
                torch.zeros(len(column), dtype=torch.float64),
                size=(len(x), len(self.centroids)),
                check_invariants=False,
            )
            dots = torch.sparse.sampled_addmm(pairs, x.double(), self._double.T, beta=0).values()
            return dots.clamp_(max=1).numpy()
        rows, columns = (torch.from_numpy(some).to(self.device) for some in (place, column))
        parts = [
            torch.linalg.vecdot(x[a].double(), self._double[b])
            for a, b in zip(rows.split(CHUNK_ROWS), columns.split(CHUNK_ROWS), strict=True)
        ]
        found: np.ndarray = torch.cat(parts).clamp_(max=1).cpu().numpy()
        return found

    def _ranked(
        self, rows: np.ndarray, m: int, place: np.ndarray, column: np.ndarray, dots: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The m best of each row's candidates."""
        ends = np.searchsorted(place, np.arange(len(rows) + 1))
        counts = np.diff(ends)
        shown = min(int(counts.max()), WIDE)
        at = np.arange(len(place)) - ends[place]
        table, names = np.full((len(rows), shown), -np.inf), np.zeros((len(rows), shown), np.int32)
        inside = at < shown
        table[place[inside], at[inside]], names[place[inside], at[inside]] = dots[inside], column[inside]
        order = np.argsort(-table, axis=1)[:, : m + 1]
        best = np.take_along_axis(table, order, 1)
        numbers, cosines = np.take_along_axis(names, order[:, :m], 1), best[:, :m].astype(np.float32).astype(np.float64)
        error = self._double_error
        doubtful = counts > shown
        with np.errstate(invalid="ignore"):
            doubtful |= (best[:, :-1] - best[:, 1:] <= 2 * error).any(axis=1)
        doubtful |= ((best[:, :m] - error).astype(np.float32) != (best[:, :m] + error).astype(np.float32)).any(axis=1)
        for row in np.flatnonzero(doubtful).tolist():
            some = slice(ends[row], ends[row + 1])
            near = np.partition(dots[some], counts[row] - m)[counts[row] - m]
            tied = np.sort(column[some][dots[some] >= near - 2 * error])
            unit = _as_they_are(rows[row : row + 1])
            exact = exact_cosines(unit, np.zeros(len(tied), np.int64), self._vectors, tied)
            first = np.argsort(-exact, kind="stable")[:m]
            numbers[row], cosines[row] = tied[first], exact[first].astype(np.float32)
        return numbers, cosines


def _as_they_are(rows: np.ndarray) -> Vectors:
    return Vectors(rows, np.ones(len(rows), np.float32))


def _greatest(bits: np.ndarray, group: int) -> np.ndarray:
    """The greatest of every `group` columns that stand q = k // group apart: int16 of (n, q)."""
    q = bits.shape[1] // group
    if group == 1:
        return bits
    best = np.maximum(bits[:, :q], bits[:, q : 2 * q])
    for i in range(2, group):
        np.maximum(best, bits[:, i * q : (i + 1) * q], out=best)
    return best


def _at_least(bits: np.ndarray, best: np.ndarray, limit: np.ndarray, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of `bits` at or over their row's limit, by row; `best` are the groups' greatest."""
    q = best.shape[1]
    place, first = np.divmod(np.flatnonzero(best >= limit[:, None]), q)
    within = (place * bits.shape[1] + first)[:, None] + q * np.arange(group)
    hits = np.flatnonzero(bits.reshape(-1).take(within) >= limit[place, None])
    which, member = np.divmod(hits, group)
    return place[which], first[which] + q * member
