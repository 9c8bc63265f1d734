import faiss
import numpy as np
import pytest
from test_ranking import uids_of

from stages.curate.kmeans import SphericalKMeans, allowed_k, training_rows
from stages.curate.vectors import normalised


def bundles(seed=0, centres=5, each=40, width=16):
    """Rows around well separated centres, and which centre each row has."""
    rng = np.random.default_rng(seed)
    middle = np.linalg.qr(rng.standard_normal((width, centres)))[0].T
    label = np.tile(np.arange(centres), each)
    return normalised(middle[label] + 0.1 * rng.standard_normal((centres * each, width))), label


def test_finds_separated_bundles():
    rows, label = bundles()
    kmeans = SphericalKMeans(iterations=20, seed=1234, nredo=5)
    centroids = kmeans.fit(rows, 5)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    found, cosine = kmeans.assign(rows, centroids)
    assert len(set(zip(found.tolist(), label.tolist(), strict=True))) == 5
    np.testing.assert_allclose(cosine, (rows * centroids[found]).sum(1), atol=1e-5)
    np.testing.assert_array_equal(found, (rows @ centroids.T).argmax(1))


def test_two_fits_are_the_same_to_the_bit_and_threads_are_given_back():
    rows, _ = bundles()
    kmeans = SphericalKMeans(iterations=10, seed=7)
    before = faiss.omp_get_max_threads()
    first = kmeans.fit(rows, 8)
    assert kmeans.fit(rows, 8).tobytes() == first.tobytes()
    assert SphericalKMeans(iterations=10, seed=8).fit(rows, 8).tobytes() != first.tobytes()
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("k", [1, 3, 6])
def test_identical_rows(k):
    rows = np.tile(bundles()[0][:1], (6, 1))
    kmeans = SphericalKMeans(iterations=5, seed=1)
    found, cosine = kmeans.assign(rows, kmeans.fit(rows, k))
    assert len(set(found.tolist())) == 1
    np.testing.assert_allclose(cosine, 1, atol=1e-3)


def test_k_is_lowered_to_what_the_rows_give():
    assert allowed_k(50_000, 10_000_000, 10) == 50_000
    assert allowed_k(50_000, 1000, 10) == 100
    assert allowed_k(20, 5, 10) == 1


def test_training_rows_are_the_same_wherever_they_lie():
    uids = uids_of(100)
    taken = training_rows(uids, 30, seed=3)
    assert len(set(taken.tolist())) == 30
    assert uids[::-1][training_rows(uids[::-1], 30, seed=3)].tolist() == uids[taken].tolist()
    assert len(training_rows(uids, 1000, seed=3)) == 100
