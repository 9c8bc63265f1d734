"""The page of `densefusion dedup-sweep`: what each threshold would remove, and the pairs next to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.duplicates import PairView, sample_pair
from pipeline.report.page import render
from pipeline.report.sweep_view import SweepView
from pipeline.report.tiles import Tiles
from pipeline.sample import Sample
from pipeline.store import Store
from pipeline.sweep import compared, pairs_near, survivors
from stages.base import ImageSource
from stages.dedup import DedupSection

PAIRS = 8
"""Pairs on each side of each threshold."""


@dataclass(frozen=True)
class Sheet:
    """Pairs whose cosine lies next to one threshold: those that it would call copies, and those it would not."""

    epsilon: float
    above: list[PairView]
    below: list[PairView]


def sheets(
    sample: Sample, images: ImageSource, store: Store, config: DedupSection, epsilons: Sequence[float]
) -> list[Sheet]:
    """For each threshold, pairs of the rows that reach the semantic step."""
    rows = survivors(sample, config)
    found = pairs_near(sample, compared(sample, config), rows, [1 - epsilon for epsilon in epsilons], PAIRS)
    tiles = Tiles(store, images, [])
    tiles.know(sample, (pair for sides in found for side in sides for pair in side))
    return [
        Sheet(epsilon, *([sample_pair(tiles, sample, pair, ("", "")) for pair in side] for side in sides))
        for epsilon, sides in zip(epsilons, found, strict=True)
    ]


def render_sweep(name: str, view: SweepView, pages: Sequence[Sheet]) -> str:
    """The page as HTML; `name` is the run's."""
    return render("sweep.html.j2", name=name, sweep=view, sheets=pages)
