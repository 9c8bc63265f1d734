import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.curate.semantic import border
from stages.curate.semantic.border import Visits, exact_visits, margin_visits, overhang
from stages.curate.vectors import Vectors


def placed(seed, n, k, d=6):
    """Rows around few directions, and centroids among them."""
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal((n, d)) * 0.5 + rng.standard_normal((4, d))[rng.integers(4, size=n)]
    vectors = Vectors.of(spread.astype(np.float16))
    unit = vectors.unit(slice(None))
    return vectors, unit, unit[rng.choice(n, k, replace=False)], rng


def test_the_margin_is_a_distance_to_the_plane_between_two_centroids():
    _, unit, centroids, _ = placed(0, 300, 9)
    cosines = unit @ centroids.T
    best = np.argsort(-cosines, axis=1)[:, :5].astype(np.int32)
    near = np.take_along_axis(cosines, best, axis=1)
    rows, visited = margin_visits(best[:, 0], near[:, 0], best[:, 1:], near[:, 1:], centroids, 0.1)
    want = set()
    for row in range(300):
        for further in best[row, 1:]:
            across = centroids[best[row, 0]] - centroids[further]
            # foot of the perpendicular: the plane is midway between the centroids, and so goes through the origin
            if across @ unit[row] / np.linalg.norm(across) <= 0.1:
                want.add((row, int(further)))
    assert 50 < len(want) < 1100
    assert set(zip(rows.tolist(), visited.tolist(), strict=True)) == want


def test_rows_without_direction_and_equal_centroids():
    centroids = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    own, near = np.zeros(2, np.int32), np.array([1, np.nan], np.float32)
    further = np.array([[1, 2], [1, 2]], np.int32)
    beside = np.array([[1, 0], [np.nan, np.nan]], np.float32)
    rows, visited = margin_visits(own, near, further, beside, centroids, 0.0)
    assert (rows.tolist(), visited.tolist()) == ([0], [1])
    assert all(len(part) == 0 for part in margin_visits(own[:0], near[:0], further[:0], beside[:0], centroids, 1.0))


@settings(max_examples=30)
@given(seed=st.integers(0, 9999), tau=st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.9999]), wrong=st.sampled_from([0, 0.02]))
def test_no_close_pair_escapes_the_exact_border(seed, tau, wrong):
    vectors, unit, centroids, rng = placed(seed, 200, 12)
    cluster = (unit @ centroids.T).argmax(1)
    elsewhere = rng.random(200) < wrong
    cluster[elsewhere] = rng.integers(0, 12, elsewhere.sum())
    visits = set(
        zip(*exact_visits(vectors, cluster, centroids, overhang(vectors, cluster, centroids), tau), strict=True)
    )
    close = np.minimum(unit.astype(np.float64) @ unit.T.astype(np.float64), 1) > tau
    for one, other in zip(*np.nonzero(np.triu(close, 1)), strict=True):
        if cluster[one] != cluster[other]:
            late, early = (one, other) if cluster[one] > cluster[other] else (other, one)
            assert (late, cluster[early]) in visits
    assert all(visited < cluster[row] for row, visited in visits)


def test_the_exact_border_skips_what_is_far_whatever_the_blocks(monkeypatch):
    vectors, unit, centroids, _ = placed(5, 400, 20)
    cluster = (unit @ centroids.T).argmax(1)
    worst = overhang(vectors, cluster, centroids)
    assert worst.max() == 0
    rows, visited = exact_visits(vectors, cluster, centroids, worst, 0.99)
    assert 0 < len(rows) < 400 * 19 / 2 * 0.5
    monkeypatch.setattr(border, "_BLOCK", 100)
    again = exact_visits(vectors, cluster, centroids, worst, 0.99)
    assert sorted(zip(rows, visited, strict=True)) == sorted(zip(*again, strict=True))
    # an assignment that is not the nearest loosens the test by as much as it is off, and no more than that
    cluster[0] = np.argsort(-(unit[0] @ centroids.T))[1]
    assert overhang(vectors, cluster, centroids)[cluster[0]] == pytest.approx(
        np.sort(unit[0] @ centroids.T)[-1] - np.sort(unit[0] @ centroids.T)[-2], abs=1e-6
    )


def test_visits_by_cluster():
    visits = Visits.of(np.array([5, 3, 4]), np.array([2, 2, 0]), 4)
    assert [visits.to(cluster).tolist() for cluster in range(4)] == [[4], [], [3, 5], []]
