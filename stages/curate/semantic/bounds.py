"""Operands of a matrix product that is nowhere below cosine - tau: cheap to compute, and sure to miss no close pair."""

import functools
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

DIRECTIONS = 60
"""With the four columns that carry the bound, operands of 64."""

_GROWTH = 1.01
"""Over sums of a few errors of first order, for the products of two of them."""
_BF16_UP = 1 + 2.0**-8
"""What was multiplied by this is not below what it was, once rounded to bfloat16."""
_ROW_SAMPLE = 256


class Bounds:
    """Makes operands of unit rows such that left(x) . right(y) > 0 wherever the cosine of x and y is above `tau`.

    A row x is replaced by q: what bfloat16 (or float32) holds of it, or of its coordinates p = Q'x along some
    orthonormal directions Q. By Cauchy and Schwarz

        x.y <= q_x.q_y + t_x t_y + m_x + m_y,   t = |x - QQ'x|,   m = |p - q| + rounding in the computation of p,

    and the columns after q carry the rest: left is [q, t, m, 1, 1], right is [q, t, 1, m - tau], the last as the sum of
    two numbers. Without directions q is the whole row and there is no t. The sum is taken in float32, whose rounding m
    also holds. Rounding a result does not change its sign, so results may be bfloat16 too.

    Args:
        tau: cosine.
        fast: bfloat16 operands, else float32.
        device: where torch puts the operands.
        directions: float64 of (d, k), orthonormal to 1e-12; None takes whole rows.
    """

    def __init__(self, tau: float, fast: bool, device: str = "cpu", directions: np.ndarray | None = None) -> None:
        import torch

        self.device = device
        self.short = directions is not None
        self.dtype = torch.bfloat16 if fast else torch.float32
        self._tau = tau
        self._directions = None if directions is None else directions.astype(np.float32)

    def row_bytes(self, d: int) -> int:
        """Size of the operand of one row of width `d`."""
        return self._width(d) * self.dtype.itemsize

    def zeros(self, rows: int, d: int) -> "torch.Tensor":
        """Room for the operands of rows of width `d`."""
        import torch

        return torch.zeros((rows, self._width(d)), dtype=self.dtype, device=self.device)

    def left(self, unit: np.ndarray) -> "torch.Tensor":
        """The left operand of float32 unit rows: (m, width)."""
        import torch

        m, d = unit.shape
        if self._directions is None:
            p, wrong = unit, 0.0
        else:
            p = unit @ self._directions  # by numpy, whose float32 no setting of torch shortens
            # |p - Q'x|: d roundings in each sum (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), and Q's
            wrong = (d + 4) * 2.0**-24 * p.shape[1] ** 0.5
        width = self._width(d)
        operand = torch.empty((m, width), dtype=self.dtype)
        q = operand[:, : p.shape[1]]
        q.copy_(torch.from_numpy(p))
        # half of the error of a float32 sum of products whose magnitudes add up to 2, with room for truncated sums
        margin = torch.full((m,), wrong + width * 2.0**-22)
        if self.dtype == torch.bfloat16:
            margin += torch.linalg.vector_norm(q.float().sub_(torch.from_numpy(p)), dim=1)
        operand[:, -3] = margin.mul_(_GROWTH * _BF16_UP)
        operand[:, -2:] = 1
        if self._directions is not None:
            tail = np.maximum(1 - np.einsum("ij,ij->i", p, p), 0) + (2 * wrong + 2.0**-17)
            operand[:, -4] = _up(torch.from_numpy(np.sqrt(tail, dtype=np.float32)), self.dtype)
        return operand.to(self.device)

    def right(self, left: "torch.Tensor") -> "torch.Tensor":
        """The right operand of rows whose left operand is given."""
        operand = left.clone()
        rest = left[:, -3].float() - self._tau
        operand[:, -3] = 1
        operand[:, -2] = rest
        operand[:, -1] = rest - operand[:, -2].float() + 2.0**-17
        return operand

    def _width(self, d: int) -> int:
        return d + 3 if self._directions is None else self._directions.shape[1] + 4


def _up(values: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """Positive numbers, none rounded down."""
    import torch

    rounded = values.to(dtype)
    if dtype == torch.bfloat16:
        rounded.view(torch.int16).add_((rounded.float() < values).to(torch.int16))
    return rounded


def product(left: "torch.Tensor", right: "torch.Tensor", out: "torch.Tensor") -> "torch.Tensor":
    """left @ right.T of (m, n), on the CPU in the first m n elements of `out`, which is flat."""
    import torch

    if left.device.type != "cpu":  # float32, so that partial sums are not shortened on the way
        return torch.mm(left, right.T, out_dtype=torch.float32) if left.dtype == torch.bfloat16 else left @ right.T
    tile = out[: len(left) * len(right)].view(len(left), len(right))
    if left.dtype == torch.float32:
        np.matmul(left.numpy(), right.numpy().T, out=tile.numpy())
        return tile
    return torch.mm(left, right.T, out=tile)


def leading_directions(unit: np.ndarray, count: int = DIRECTIONS) -> np.ndarray:
    """Orthonormal directions that hold most of some rows' length, by subspace iteration: float64 of (d, count)."""
    found = np.random.default_rng(0).standard_normal((unit.shape[1], count), np.float32)
    for _ in range(3):
        found = unit.T @ (unit @ found)
        found /= np.linalg.norm(found, axis=0) + np.float32(1e-30)
    return np.linalg.qr(found.astype(np.float64))[0]


def false_share(bounds: Bounds, unit: np.ndarray, tau: float) -> float:
    """The share of pairs among some rows that the bounds let pass though they are not close."""
    import torch

    left = bounds.left(unit)
    rows = slice(0, _ROW_SAMPLE)
    out = torch.empty(len(unit[rows]) * len(unit), dtype=left.dtype)
    passed = product(left[rows], bounds.right(left), out).gt(0).cpu().numpy()
    which = np.flatnonzero(passed.any(1))
    return np.count_nonzero(passed[which] & (unit[which] @ unit.T <= tau)) / passed.size


@functools.cache
def fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 products take clearly less time here than float32 ones; found out once a process."""
    import torch

    if device != "cpu":
        return True
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        rows = torch.ones((384, 512), dtype=dtype)
        out = torch.empty(384 * 384, dtype=dtype)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            product(rows, rows, out)
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]
