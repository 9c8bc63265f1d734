"""Intervals hold what they should, and differences are paired."""

import numpy as np
import pytest

from fusion.evaluate.statistics import Bootstrap
from fusion.evaluate.tally import Tally


def test_a_figure_is_the_share_over_all_pictures_together() -> None:
    figure = Bootstrap(3, 200, 0, 0.95).figure([Tally(1, 1), Tally(1, 3), Tally(0, 0)])
    assert figure is not None
    assert (figure.value, figure.n, figure.pictures) == (0.5, 4, 2)
    assert figure.low <= figure.value <= figure.high


def test_there_is_no_figure_of_nothing() -> None:
    bootstrap = Bootstrap(2, 200, 0, 0.95)
    assert bootstrap.figure([Tally(0, 0), Tally(0, 0)]) is None
    assert bootstrap.difference([Tally(0, 0)] * 2, [Tally(1, 1)] * 2) is None


def test_the_same_seed_gives_the_same_interval() -> None:
    tallies = [Tally(i * i % 7, 7 + i % 5) for i in range(50)]
    assert Bootstrap(50, 500, 1, 0.9).figure(tallies) == Bootstrap(50, 500, 1, 0.9).figure(tallies)
    assert Bootstrap(50, 500, 1, 0.9).figure(tallies) != Bootstrap(50, 500, 2, 0.9).figure(tallies)


def test_an_interval_holds_the_true_share_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    bootstrap = Bootstrap(80, 400, 0, 0.9)
    inside = 0
    for _ in range(200):
        sizes = rng.integers(1, 6, 80)
        figure = bootstrap.figure([Tally(float(rng.binomial(n, 0.7)), float(n)) for n in sizes])
        assert figure is not None
        inside += figure.low <= 0.7 <= figure.high
    assert 0.82 <= inside / 200 <= 0.96


def test_a_difference_is_as_sure_as_the_pictures_agree() -> None:
    rng = np.random.default_rng(1)
    hits = rng.integers(0, 5, 100)
    one = [Tally(float(n), 5) for n in hits]
    other = [Tally(float(n + 1), 5) for n in hits]
    bootstrap = Bootstrap(100, 500, 0, 0.95)
    difference = bootstrap.difference(other, one)
    assert difference is not None
    assert difference.value == pytest.approx(0.2)
    assert difference.low == pytest.approx(0.2, abs=1e-6)
    assert difference.high == pytest.approx(0.2, abs=1e-6)
