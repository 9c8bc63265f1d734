"""Charts as coordinates; the templates draw them as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_BINS = 12


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: of its bin, `2` or `4–7`.
        height: 0..1 of the tallest.
    """

    label: str
    count: int
    height: float


@dataclass(frozen=True)
class Histogram:
    """How often whole numbers occur.

    Attributes:
        log: whether the heights are on a logarithmic scale.
    """

    bars: list[Bar]
    log: bool


@dataclass(frozen=True)
class Curve:
    """One line of a chart; x and y run 0..1, from the lower left corner."""

    label: str
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Lines over thresholds on a logarithmic axis.

    Attributes:
        ticks: (x, label) below the chart.
        top: the share that y = 1 stands for.
        mark: x of the run's own threshold.
    """

    curves: list[Curve]
    ticks: list[tuple[float, str]]
    top: float
    mark: float | None


def histogram(values: np.ndarray) -> Histogram:
    """At most a dozen bins: single numbers where there are few, else equal steps, or doublings where sizes differ much.

    Args:
        values: int64 of (n,), all at least 1.
    """
    if not len(values):
        return Histogram([], False)
    edges = _edges(int(values.min()), int(values.max()))
    counts = np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges) - 1)
    log = bool(counts.max() > 50 * counts[counts > 0].min())
    heights = np.log1p(counts) if log else counts.astype(float)
    heights /= heights.max()
    bars = [
        Bar(f"{lo:,}" if hi - lo == 1 else f"{lo:,}–{hi - 1:,}", int(n), float(height))
        for lo, hi, n, height in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, heights, strict=True)
    ]
    return Histogram(bars, log)


def _edges(lowest: int, highest: int) -> np.ndarray:
    if highest >= 30 * lowest:
        doublings = math.ceil(math.log2((highest + 1) / lowest))
        step = math.ceil(doublings / _BINS)
        return lowest * 2 ** np.arange(0, doublings + step, step)
    step = math.ceil((highest - lowest + 1) / _BINS)
    return np.arange(lowest, highest + step + 1, step)


def chart(lines: Mapping[str, Sequence[float]], xs: Sequence[float], mark: float | None) -> Chart:
    """Shares over thresholds.

    Args:
        lines: shares at each of `xs`, by label.
        xs: above 0, ascending.
        mark: one of `xs`, or None.
    """
    low, high = math.log(xs[0]), math.log(xs[-1])
    at = [(math.log(x) - low) / (high - low) if high > low else 0.5 for x in xs]
    most = max((share for shares in lines.values() for share in shares), default=0.0)
    top = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if most <= step)
    curves = [Curve(label, [(x, y / top) for x, y in zip(at, shares, strict=True)]) for label, shares in lines.items()]
    ticks: list[tuple[float, str]] = []
    for place, x in zip(at, xs, strict=True):
        if not ticks or place - ticks[-1][0] >= 0.09:
            ticks.append((place, f"{x:g}"))
    return Chart(curves, ticks, top, None if mark is None else at[list(xs).index(mark)])
