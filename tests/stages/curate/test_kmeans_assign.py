import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.curate.kmeans import Tree, shares, single_threads
from stages.curate.kmeans.assign import Nearest
from stages.curate.vectors import Vectors


def brute(vectors, centroids, m):
    """By the definition: float64 dot products of float32 unit rows, ties to the lower number."""
    dots = (vectors.unit(slice(None))[:, None].astype(np.float64) * centroids).sum(-1).clip(max=1)
    order = np.argsort(-dots, axis=1, kind="stable")[:, :m]
    return order, np.take_along_axis(dots, order, 1).astype(np.float32)


def random_rows(n, width, seed=0, shift=0.5):
    rows = np.random.default_rng(seed).standard_normal((n, width)) + shift
    return Vectors.of(rows.astype(np.float16))


def centroids_of(vectors):
    rows = vectors.unit(slice(None)).astype(np.float64)
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("k", [1, 5, 40, 200, 1000])
@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_is_the_brute_force_answer(k, shift, portable):
    vectors, centroids = random_rows(300, 24, shift=shift), centroids_of(random_rows(k, 24, 1, shift))
    nearest = Nearest(centroids)
    nearest._portable = portable
    numbers, cosines = nearest.search(vectors, 8)
    expected = brute(vectors, centroids, 8)
    np.testing.assert_array_equal(numbers, expected[0])
    np.testing.assert_array_equal(cosines, expected[1])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_ties_zeros_and_nan(data):
    numbers = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, float("nan")]), min_size=4, max_size=4)
    rows = np.array(data.draw(st.lists(numbers, min_size=1, max_size=8)), np.float16)
    pool = Vectors.of(np.nan_to_num(np.array(data.draw(st.lists(numbers, min_size=1, max_size=6)), np.float16), nan=2))
    centroids = np.resize(centroids_of(pool), (data.draw(st.sampled_from([1, 7, 50, 300])), 4))
    vectors = Vectors.of(rows)
    found = Nearest(centroids).search(vectors, 5)
    expected = brute(vectors, centroids, 5)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_neither_chunks_nor_threads_matter():
    vectors, centroids = random_rows(9000, 32), centroids_of(random_rows(500, 32, 1))
    whole = Nearest(centroids).search(vectors, 8)
    with single_threads(2) as run:
        two = Nearest(centroids, run=run).search(vectors, 8)
    parts = [Nearest(centroids).search(vectors.take(slice(a, a + 700)), 8) for a in range(0, 9000, 700)]
    for i in range(2):
        np.testing.assert_array_equal(whole[i], two[i])
        np.testing.assert_array_equal(whole[i], np.concatenate([part[i] for part in parts]))


@pytest.mark.gpu
def test_a_gpu_gives_the_same_answer():
    vectors, centroids = random_rows(9000, 32), centroids_of(random_rows(500, 32, 1))
    here, there = Nearest(centroids).search(vectors, 8), Nearest(centroids, "cuda").search(vectors, 8)
    np.testing.assert_array_equal(here[0], there[0])
    np.testing.assert_array_equal(here[1], there[1])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.integers(0, 100))
def test_shares_follow_the_rows(rows, more):
    rows = np.array(rows)
    given_ = shares(rows, len(rows) + more)
    assert given_.min() >= 1
    if rows.any():
        assert given_.sum() == len(rows) + more
        assert (np.abs(given_ - 1 - more * rows / rows.sum()) < 1).all()


def a_tree(width=16):
    rng = np.random.default_rng(0)
    levels = tuple(centroids_of(random_rows(k, width, seed)) for seed, k in enumerate((6, 40, 300)))
    bounds = tuple(
        np.concatenate([[0], np.sort(rng.choice(np.arange(1, b), a - 1, replace=False)), [b]])
        for a, b in ((6, 40), (40, 300))
    )
    return Tree(levels, bounds)


def test_a_tree_that_is_looked_through_whole_is_flat():
    tree, vectors = a_tree(), random_rows(200, 16, 5)
    numbers, cosines = tree.search(vectors, 8, probes=40)
    expected = brute(vectors, tree.levels[-1], 8)
    np.testing.assert_array_equal(numbers, expected[0])
    np.testing.assert_array_equal(cosines, expected[1])


def test_a_tree_looks_under_the_nearest_centroids_alone(tmp_path):
    tree, vectors = a_tree(), random_rows(200, 16, 5)
    tree.save(tmp_path / "tree.npz")
    tree = Tree.load(tmp_path / "tree.npz")
    numbers, cosines = tree.search(vectors, 8, probes=1)
    parents = tree.parents()
    assert parents.shape == (300, 2)
    for row, (top, _) in enumerate(zip(*brute(vectors, tree.levels[0], 1), strict=True)):
        middle = np.flatnonzero(np.unique(parents, axis=0)[:, 0] == top[0])
        middle = middle[brute(vectors.take(slice(row, row + 1)), tree.levels[1][middle], 1)[0][0, 0]]
        below = np.flatnonzero(parents[:, 1] == middle)
        expected = brute(vectors.take(slice(row, row + 1)), tree.levels[2][below], 8)
        looked_at = len(expected[0][0])
        np.testing.assert_array_equal(numbers[row, :looked_at], below[expected[0][0]])
        np.testing.assert_array_equal(cosines[row, :looked_at], expected[1][0])
        assert (numbers[row, looked_at:] == -1).all()
