import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ranking import uids_of

from stages.curate.kmeans import allowed_k, half_units, make_engine, single_threads, train, training_rows
from stages.curate.kmeans.checkpoint import Checkpoint
from stages.curate.vectors import Vectors

ENGINES = ("torch", "faiss")


def bundles(centres=5, each=40, width=16, spread=0.1, seed=0):
    """Unit rows around well separated centres, and which centre each row has."""
    rng = np.random.default_rng(seed)
    middle = np.linalg.qr(rng.standard_normal((width, width)))[0][np.arange(centres) % width]
    middle = middle + 0.5 * rng.standard_normal((centres, width)) * (centres > width)
    label = np.tile(np.arange(centres), each)
    return units(middle[label] + spread * rng.standard_normal((centres * each, width))), label


def units(rows):
    return half_units(Vectors.of(rows.astype(np.float32)))


def fit(rows, k, engine="torch", threads=1, iterations=20, seed=(1,), **how):
    with single_threads(threads) as run:
        return train(make_engine(engine, rows, "cpu", run), k, iterations=iterations, seed=seed, **how)


def same(a, b):
    return a.centroids.tobytes() == b.centroids.tobytes() and a.objective == b.objective and a.reseeded == b.reseeded


@pytest.mark.parametrize("engine", ENGINES)
def test_finds_separated_bundles(engine):
    rows, label = bundles()
    found = fit(rows, 5, engine, starts=5)
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)
    assert len(set(zip(found.labels.tolist(), label.tolist(), strict=True))) == 5
    cosines = (rows.astype(np.float64) * found.centroids[found.labels]).sum(1)
    assert found.objective[-1] == pytest.approx(cosines.mean(), abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_do_not_matter_and_are_given_back(engine):
    rows, _ = bundles(centres=400, each=45)
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    one = fit(rows, 300, engine, iterations=5)
    assert same(one, fit(rows, 300, engine, threads=2, iterations=5))
    assert not same(one, fit(rows, 300, engine, iterations=5, seed=(2,)))
    assert (torch.get_num_threads(), faiss.omp_get_max_threads()) == before


def test_looking_near_by_alone_loses_little():
    rows, _ = bundles(centres=500, each=40, spread=0.3)
    near, all_ = (fit(rows, 300, engine, iterations=12).objective for engine in ENGINES)
    assert 1 - near[-1] <= 1.01 * (1 - all_[-1])


def at(state):
    return state.start, len(state.now.objective) if state.now else 0


@pytest.mark.parametrize("stop", [(0, 1), (0, 7), (1, 0), (1, 3)])
def test_a_kill_and_a_resume_give_the_same_bytes(tmp_path, stop):
    rows, _ = bundles(centres=300, each=20)
    how = {"k": 280, "iterations": 9, "starts": 2}
    every, went_on = [], []
    unbroken = fit(rows, **how, keep=every.append)

    class KilledError(Exception):
        pass

    def keep(state):
        Checkpoint(tmp_path, "state", apart=0).save(state)
        if at(state) == stop:
            raise KilledError

    with pytest.raises(KilledError):
        fit(rows, **how, keep=keep)
    assert len(list(tmp_path.iterdir())) == 1
    resumed = fit(rows, **how, state=Checkpoint(tmp_path, "state").load(), keep=went_on.append)
    assert [at(state) for state in went_on] == [at(state) for state in every if at(state) > stop]
    assert same(resumed, unbroken)


def test_stops_where_the_objective_stands_still():
    rows, _ = bundles()
    assert len(fit(rows, 5, iterations=100).objective) < 100
    slack, strict = (len(fit(rows, 9, iterations=100, tolerance=t).objective) for t in (0.5, 0))
    assert slack < strict


def test_empty_clusters_get_far_rows_of_large_ones():
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.standard_normal((1, 16)), 500, axis=0)
    rows = units(np.concatenate([alike, rng.standard_normal((20, 16))])[rng.permutation(520)])
    found = fit(rows, 15)
    assert found.reseeded > 0
    assert (np.bincount(found.labels, minlength=15) > 0).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [1, 3, 6, 9])
def test_identical_rows(engine, k):
    found = fit(np.tile(bundles()[0][:1], (6, 1)), k, engine)
    assert len(set(found.labels.tolist())) == 1
    assert found.centroids.shape == (k, 16)
    assert found.objective[-1] == pytest.approx(1, abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_rows_give_unit_centroids_and_no_worse_an_objective(data):
    n = data.draw(st.integers(1, 30))
    pool = data.draw(st.lists(st.lists(st.sampled_from([-2.0, 0.0, 1.0]), min_size=3, max_size=3), min_size=1))
    rows = units(np.resize(np.array(pool), (n, 3)))
    found = fit(rows, data.draw(st.integers(1, 40)))
    if len(rows):
        np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)
        assert (np.diff(found.objective) >= -1e-3).all()
    else:
        assert not found.centroids.any()


def test_rows_without_direction_train_nothing():
    rows = bundles()[0].astype(np.float32)
    rows[[0, 7]], rows[9, 3] = 0, np.nan
    assert len(units(rows)) == len(rows) - 3


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


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gpu_trains_as_well(engine):
    rows, _ = bundles(centres=400, each=45, spread=0.3)
    with single_threads(1) as run:
        there = [train(make_engine(engine, rows, "cuda", run), 300, iterations=12, seed=(1,)) for _ in range(2)]
    assert same(*there)
    assert there[0].objective[-1] == pytest.approx(fit(rows, 300, engine, iterations=12).objective[-1], rel=1e-2)
