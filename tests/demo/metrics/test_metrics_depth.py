"""Depth figures on maps whose figures are known."""

import numpy as np
import pytest

from demo.metrics.depth import depth_figures, mean_map, ordered_pairs

SHAPE = (16, 16)


@pytest.fixture
def world():
    """Six ground planes of other slope and skew, each with two objects: (true, owners, distances, mean)."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:16, 0:16] / 15
    true = np.stack([rows * slope + columns * skew for slope, skew in rng.uniform(0.1, 1, (12, 2))])
    owners = np.zeros((12, *SHAPE), np.uint8)
    owners[:, 2:5, 2:5], owners[:, 10:13, 9:12] = 2, 1
    true[owners == 1], true[owners == 2] = 1 / 1.5, 1 / 2.5
    return true[6:], owners[6:], [(1.5, 2.5)] * 6, mean_map(true[:6])


def test_the_truth_itself_at_any_scale_and_offset_is_perfect(world):
    true, owners, distances, mean = world
    scale = np.arange(1, 7)[:, None, None]
    figures = depth_figures(true * scale - 3 * scale, true, owners, distances, mean)
    assert figures.residual_correlation == pytest.approx(1)
    assert figures.correlation == pytest.approx(1)
    assert (figures.pair_order, figures.pairs) == (1, 6)


def test_the_mean_map_explains_much_but_nothing_beyond_itself(world):
    true, owners, distances, mean = world
    figures = depth_figures(np.broadcast_to(5 * mean + 2, true.shape), true, owners, distances, mean)
    assert figures.residual_correlation == 0
    assert figures.correlation > 0.6


def test_upside_down_is_as_wrong_as_can_be(world):
    true, owners, distances, mean = world
    figures = depth_figures(-true, true, owners, distances, mean)
    assert figures.correlation == pytest.approx(-1)
    assert figures.residual_correlation == pytest.approx(-1)
    assert figures.pair_order == 0


def test_a_flat_map_orders_nothing(world):
    true, owners, distances, mean = world
    figures = depth_figures(np.full_like(true, 0.1), true, owners, distances, mean)
    assert (figures.residual_correlation, figures.correlation, figures.pair_order) == (0, 0, 0)


def test_pairs_at_one_distance_and_hidden_objects_do_not_count():
    owners = np.zeros((1, *SHAPE), np.uint8)
    owners[0, 0:4], owners[0, 4:8], owners[0, 8:12], owners[0, 15, 15] = 1, 2, 3, 4
    disparity = 1 / np.choose(owners, [9, 2.0, 2.1, 4.0, 1.0])
    assert ordered_pairs(disparity, owners, [(2.0, 2.1, 4.0, 1.0)]) == (2, 2)


def test_shapes_that_do_not_match_are_refused(world):
    true, owners, distances, mean = world
    with pytest.raises(ValueError, match="one shape"):
        depth_figures(true[:, :8], true, owners, distances, mean)
