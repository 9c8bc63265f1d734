import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.curate.semantic.settle import joined, settle


def walked(earlier, later, rows):
    """Row after row in keep order."""
    kept = np.ones(rows, bool)
    for row in range(rows):
        kept[row] = not kept[earlier[later == row]].any()
    return kept


EDGES = st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)).filter(lambda e: e[0] != e[1]), max_size=150)


@settings(max_examples=100)
@given(EDGES)
def test_the_greedy_walk_and_the_components(edges):
    ends = np.sort(np.array(edges, np.int64).reshape(-1, 2), axis=1)
    np.testing.assert_array_equal(settle(ends[:, 0], ends[:, 1], 60), walked(ends[:, 0], ends[:, 1], 60))
    label = np.arange(60)
    for _ in range(60):
        for one, other in ends:
            label[[one, other]] = min(label[one], label[other])
    np.testing.assert_array_equal(joined(ends[:, 1], ends[:, 0], 60), label)


def test_many_rows_at_once():
    rng = np.random.default_rng(0)
    ends = np.sort(rng.integers(0, 3000, (6000, 2)), axis=1)
    ends = ends[ends[:, 0] < ends[:, 1]]
    np.testing.assert_array_equal(settle(ends[:, 0], ends[:, 1], 3000), walked(ends[:, 0], ends[:, 1], 3000))


@pytest.mark.parametrize("order", [np.arange(200_000), np.random.default_rng(0).permutation(200_000)])
def test_one_path_through_all_rows_takes_no_quadratic_time(order):
    began = time.process_time()
    ends = np.sort(np.stack([order[:-1], order[1:]], 1), axis=1)
    kept = settle(ends[:, 0], ends[:, 1], len(order))
    assert not (kept[ends[:, 0]] & kept[ends[:, 1]]).any()
    assert (joined(ends[:, 0], ends[:, 1], len(order)) == 0).all()
    assert time.process_time() - began < 30  # rounds over all rows would take half an hour
