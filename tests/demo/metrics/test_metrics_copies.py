import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.metrics.copies import copy_figures, earlier_neighbours, found_above, threshold_for

SCENES = {"a": 1, "a2": 1, "b": 2, "b2": 2, "c": 3, "d": 4}


def test_a_copy_is_found_where_its_own_original_is_the_reason():
    figures = copy_figures(SCENES, {"a2": "a", "b": "b2"})
    assert (figures.found, figures.hit) == (1, 0)


def test_what_goes_because_of_another_scene_is_a_hit_and_finds_nothing():
    figures = copy_figures(SCENES, {"a2": "b", "a": "a2", "d": "c"})
    assert (figures.found, figures.hit) == (0.5, 0.5)
    assert copy_figures(SCENES, {}).found == 0


def test_without_copies_there_is_nothing_to_find():
    with pytest.raises(ValueError, match="have one"):
        copy_figures({"a": 1, "b": 2}, {})


def test_neighbours_are_sought_among_earlier_scenes():
    similarity = np.array([[1, 0.2, 0.9], [0.2, 1, 0.3], [0.9, 0.3, 1]])
    assert earlier_neighbours(similarity).tolist() == [-np.inf, 0.2, 0.9]


def test_a_threshold_worked_out_by_hand():
    distinct = np.array([0.1, 0.9, 0.5, 0.5])
    assert threshold_for(distinct, 0.25) == 0.5
    assert found_above(np.array([0.5, 0.6, 0.95, 0.2]), 0.5) == 0.5
    assert threshold_for(distinct, 0.2) == 0.9


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.floats(0, 0.99))
def test_no_more_scenes_are_hit_than_allowed_and_no_lower_threshold_would_do(values, most):
    distinct = np.array(values, dtype=float)
    threshold = threshold_for(distinct, most)
    assert (distinct > threshold).mean() <= most
    lower = distinct[distinct < threshold]
    if lower.size:
        assert (distinct > lower.max()).mean() > most
