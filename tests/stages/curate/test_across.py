"""The rules over all clusters, against a walk over every pair of rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.curate.semantic import across
from stages.curate.semantic.across import LocalSearch
from stages.curate.semantic.border import Visits, exact_visits, overhang
from stages.curate.semantic.bounds import leading_directions
from stages.curate.semantic.clustered import Clustered
from stages.curate.semantic.sketches import Sketches, sketch_directions, sketches_of
from stages.curate.vectors import Vectors

# unit vectors whose cosines are exact: 1, 0.75, 0.5, ... so that ties and the strict threshold mean something
CORNERS = np.concatenate([np.stack(np.meshgrid(*[[-0.5, 0.5]] * 4), -1).reshape(-1, 4), np.eye(4)]).astype(np.float16)
ODD = np.array([[0, 0, 0, 0], [np.nan, 1, 0, 0], [np.inf, 0, 1, 0]], np.float16)


def drifting(rng, n, clusters):
    """Steps along a few circles, so that chains run across the borders of clusters that cut them at random places."""
    angle = np.cumsum(rng.uniform(0, 0.35, n))
    other = rng.integers(0, 3, n)
    vectors = np.stack([np.cos(angle), np.sin(angle), 0.2 * other, np.full(n, 0.3)], 1).astype(np.float16)
    return vectors, rng.integers(0, clusters, n)


def clustered(vectors, cluster, rank, tau, visits, k):
    order = np.lexsort((rank, cluster))
    place = np.argsort(order)
    rows, visited = visits
    starts = np.searchsorted(cluster[order], np.arange(k + 1))
    return order, Clustered(
        Vectors.of(vectors[order]), rank[order], starts, Visits.of(place[rows], visited, k), tau, memory_mb=1
    )


def oracle(rows, cluster, tau, rule):
    """Who neighbours whom, who stays, and for `components` each row's first: a walk in keep order over all pairs."""
    unit = rows.vectors.unit(slice(None)).astype(np.float64)
    close = np.minimum(unit @ unit.T, 1) > tau
    meets = np.zeros((len(cluster), len(rows.starts) - 1), bool)
    meets[np.arange(len(cluster)), cluster] = True
    for visited in range(len(rows.starts) - 1):
        meets[rows.visits.to(visited), visited] = True
    seen = meets[:, cluster]
    close &= seen | seen.T
    np.fill_diagonal(close, False)
    order = np.argsort(rows.rank)
    kept = np.ones(len(cluster), bool)
    done = np.zeros(len(cluster), bool)
    for row in order:
        near = close[row] & done
        kept[row] = not (near & kept if rule == "greedy" else near).any()
        done[row] = True
    if rule == "components":
        label = rows.rank.copy()
        for _ in range(len(label)):
            label = np.minimum(label, np.where(close, label, len(label)).min(1, initial=len(label)))
        kept = label == rows.rank
        return close, kept, order[label]
    return close, kept, None


def check(rows, cluster, tau, rule):
    by, cosine = LocalSearch(rows).duplicates(rule, borders=True)
    close, kept, first = oracle(rows, cluster, tau, rule)
    np.testing.assert_array_equal(by < 0, kept)
    gone = np.flatnonzero(by >= 0)
    assert (rows.rank[by[gone]] < rows.rank[gone]).all()
    unit = rows.vectors.unit(slice(None)).astype(np.float64)
    np.testing.assert_allclose(cosine[gone], (unit[gone] * unit[by[gone]]).sum(1), atol=1e-6)
    assert np.isnan(cosine[kept]).all()
    if rule == "components":
        np.testing.assert_array_equal(by[gone], first[gone])
    else:
        assert close[gone, by[gone]].all()
    if rule == "greedy":
        assert kept[by[gone]].all()


@pytest.mark.parametrize("rule", ["greedy", "semdedup", "components"])
@settings(max_examples=40)
@given(
    at=st.lists(st.integers(0, len(CORNERS) + len(ODD) - 1), max_size=40),
    tau=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    seed=st.integers(0, 99),
    patience=st.sampled_from([0, 4]),
)
def test_a_walk_over_all_pairs(rule, at, tau, seed, patience):
    rng = np.random.default_rng(seed)
    vectors = np.concatenate([CORNERS, ODD])[np.array(at, np.int64)]
    visits = np.nonzero(rng.random((len(at), 4)) < 0.4)
    cluster, rank = rng.integers(0, 4, len(at)), rng.permutation(len(at))
    visits = tuple(part[visits[1] != cluster[visits[0]]] for part in visits)
    order, rows = clustered(vectors, cluster, rank, tau, visits, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(across, "_PATIENCE", patience)
        check(rows, cluster[order], tau, rule)


@pytest.mark.parametrize("rule", ["greedy", "semdedup", "components"])
@pytest.mark.parametrize("patience", [0, 2, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_series_that_drift_across_borders(monkeypatch, rule, patience, seed):
    monkeypatch.setattr(across, "_PATIENCE", patience)
    rng = np.random.default_rng(seed)
    vectors, cluster = drifting(rng, 400, 3)
    cluster = np.arange(400) // 20 % 5 if seed == 0 else cluster
    k = 5
    visits = np.nonzero(rng.random((400, k)) < 0.7)
    visits = tuple(part[visits[1] != cluster[visits[0]]] for part in visits)
    rank = rng.permutation(400) if seed else np.arange(400)
    order, rows = clustered(vectors, cluster, rank, 0.97, visits, k)
    check(rows, cluster[order], 0.97, rule)


@pytest.mark.parametrize("tau", [0.3, 0.9, 0.97, 1 - 1e-4])
@pytest.mark.parametrize("rule", ["greedy", "semdedup", "components"])
def test_sketches_change_nothing(rule, tau):
    rng = np.random.default_rng(1)
    vectors, cluster = drifting(rng, 500, 6)
    wide = vectors @ np.linalg.qr(rng.standard_normal((90, 4)))[0].T + rng.standard_normal((500, 90)) * 0.005
    wide[[3, 4]] = 0
    visits = np.nonzero(rng.random((500, 6)) < 0.5)
    visits = tuple(part[visits[1] != cluster[visits[0]]] for part in visits)
    order, rows = clustered(wide.astype(np.float16), cluster, rng.permutation(500), tau, visits, 6)
    directions = leading_directions(rows.vectors.unit(slice(None)))
    bits = sketches_of(rows.vectors, slice(0, 500), directions)
    sketched = replace(rows, sketches=Sketches(bits, directions, tau))
    check(sketched, cluster[order], tau, rule)
    for plain, short in zip(
        LocalSearch(rows).duplicates(rule, True), LocalSearch(sketched).duplicates(rule, True), strict=True
    ):
        np.testing.assert_array_equal(plain, short)


def test_sketches_pass_by_most_pairs_or_are_not_used():
    rng = np.random.default_rng(2)
    vectors = Vectors.of((rng.standard_normal((1500, 200)) / (np.arange(200) + 1)).astype(np.float16))
    halves = np.arange(750), np.arange(750, 1500)
    directions = sketch_directions(vectors, [halves], 0.95)
    assert directions.shape == (200, 60)
    sketches = Sketches(sketches_of(vectors, slice(0, 1500), directions), directions, 0.95)
    found = [pairs for pairs, crowd in sketches.candidates(*halves) if len(crowd[0]) == 0]
    passed = {pair for pairs in found for pair in zip(*(side.tolist() for side in pairs), strict=True)}
    unit = vectors.unit(slice(None))
    close = np.argwhere(unit[:750] @ unit[750:].T > 0.951) + np.array([0, 750])
    assert {tuple(pair) for pair in close.tolist()} <= passed
    assert 0 < len(close) <= len(passed) < 0.006 * 750**2
    # all are alike: whole rows decide
    crowd = np.zeros(400, np.int64)
    assert [len(part[0]) for pairs in sketches.candidates(crowd, crowd) for part in pairs] == [0, 400]
    even = Vectors.of(rng.standard_normal((1500, 200)).astype(np.float16))
    assert sketch_directions(even, [halves], 0.5).shape == (200, 0)
    assert sketch_directions(vectors, [], 0.95).shape == (200, 0)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), tau=st.sampled_from([0.2, 0.8, 0.95, 0.99]), routed=st.booleans())
def test_exact_borders_leave_what_greedy_leaves_over_everything(seed, tau, routed):
    rng = np.random.default_rng(seed)
    n, k = 150, 6
    vectors = rng.standard_normal((n, 5)) * [1, 1, 1, 0.3, 0.1] + [1, 0, 0, 0, 0]
    vectors[rng.random(n) < 0.03] = 0
    vectors = vectors.astype(np.float16)
    unit = Vectors.of(vectors).unit(slice(None))
    centroids = unit[rng.choice(n, k, replace=False)]
    cosines = unit @ centroids.T
    # a routed assignment is now and then not the nearest
    cluster = np.where(routed & (rng.random(n) < 0.1), rng.integers(0, k, n), cosines.argmax(1))
    whole = Vectors.of(vectors)
    worst = overhang(whole, cluster, centroids)
    assert routed or worst.max() < 1e-5
    visits = exact_visits(whole, cluster, centroids, worst, tau)
    rank = rng.permutation(n)
    _, rows = clustered(vectors, cluster, rank, tau, visits, k)
    by, _ = LocalSearch(rows).duplicates("greedy", borders=True)
    alone = Clustered(rows.vectors.take(np.argsort(rows.rank)), np.arange(n), np.array([0, n]), Visits.none(1), tau)
    want, _ = LocalSearch(alone).duplicates("greedy", borders=False)
    np.testing.assert_array_equal(by[np.argsort(rows.rank)] < 0, want < 0)
