"""The rules inside a cluster against oracles that compare every pair."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from benchmarks.curation.planted import topics
from stages.curate.semantic import blocks
from stages.curate.semantic.bounds import Bounds, leading_directions
from stages.curate.semantic.rules import duplicates_within
from stages.curate.semantic.similarity import close_pairs, pairs_of
from stages.curate.semantic.tiles import Prepared, Screen, Tiling
from stages.curate.vectors import Vectors

BLOCKS = {"greedy": blocks.greedy, "semdedup": blocks.first_earlier, "components": blocks.components}
RULES = ["greedy", "semdedup", "components"]
ODD = np.array([np.nan, np.inf, -np.inf, 0.0])


def cosines(vectors):
    """Every cosine, by definition."""
    unit = vectors.unit(slice(None)).astype(np.float64)
    return np.minimum(np.array([(unit * row).sum(1) for row in unit]).reshape(len(unit), len(unit)), 1)


def oracle(matrix, tau, rule):
    """Because of which row each goes, row by row."""
    n = len(matrix)
    by = np.full(n, -1)
    if rule == "components":
        _, label = connected_components(matrix > tau)
        first = np.array([np.flatnonzero(label == part)[0] for part in label], np.int64)
        return np.where(first == np.arange(n), -1, first)
    for j in range(n):
        close = [i for i in np.flatnonzero(matrix[:j, j] > tau) if rule == "semdedup" or by[i] < 0]
        by[j] = min(close, default=-1)
    return by


@st.composite
def clusters(draw):
    """Drifting rows with copies, ties at simple cosines, and rows with no direction."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d = draw(st.integers(0, 90)), draw(st.integers(1, 70))
    kind = draw(st.sampled_from(["drift", "corners", "one"]))
    if kind == "corners":
        rows = rng.choice([-1.0, 0.0, 1.0], (n, d))
    elif kind == "one":
        rows = np.tile(rng.standard_normal(d), (n, 1))
    else:
        rows = np.cumsum(rng.standard_normal((n, d)) * draw(st.sampled_from([0.05, 0.2, 1])), 0) + rng.standard_normal(
            d
        )
    if n:
        again = rng.random(n) < draw(st.sampled_from([0, 0.3]))
        rows[again] = rows[rng.integers(n, size=int(again.sum()))]
        odd = rng.random(n) < draw(st.sampled_from([0, 0.1]))
        rows[odd, rng.integers(d)] = rng.choice(ODD, int(odd.sum()))
        rows[rng.random(n) < 0.03] = 0
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    mean = rng.standard_normal(d).astype(np.float32) * 0.3 if draw(st.booleans()) else None
    return Vectors.of(rows.astype(dtype), mean)


TAU = st.sampled_from([0.0, 0.25, 0.5, 0.8, 0.95, 0.99, 0.9999999, 1.0])


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40)
@given(clusters(), TAU)
def test_every_rule_equals_its_oracle(rule, vectors, tau):
    matrix = cosines(vectors)
    by, cosine = duplicates_within(vectors, tau, rule)
    np.testing.assert_array_equal(by, oracle(matrix, tau, rule))
    gone = np.flatnonzero(by >= 0)
    np.testing.assert_array_equal(cosine[gone], matrix[gone, by[gone]].astype(np.float32))
    assert np.isnan(np.delete(cosine, gone)).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("sketched", [True, False])
@settings(max_examples=15)
@given(clusters(), TAU, st.sampled_from([(16, 8), (128, 64)]), st.sampled_from([0, 20_000, 1 << 30]))
def test_every_path_gives_the_same(rule, fast, sketched, vectors, tau, sides, kept):
    """Few directions, small tiles and nothing kept leave the most to be decided by the exact cosine."""
    directions = leading_directions(vectors.unit(slice(None)), min(3, vectors.stored.shape[1])) if sketched else None
    bounds = Bounds(tau, fast, directions=directions)
    assume(tau < 1)
    rows = np.flatnonzero(vectors.scale)
    assume(len(rows))
    tiling = Tiling(*sides, 4, kept)
    prepared = Prepared(vectors, rows, bounds, tiling)
    found = BLOCKS[rule](Screen(prepared, prepared, tau, bounds, tiling))
    np.testing.assert_array_equal(found, oracle(cosines(vectors)[np.ix_(rows, rows)], tau, rule))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tau", [0.3, 0.6, 0.9])
def test_rows_that_are_much_alike(rule, tau, monkeypatch):
    """More rows than one product takes, most of them close to many others."""
    rng = np.random.default_rng(5)
    vectors = Vectors.of((rng.standard_normal((900, 12)) + 1.5).astype(np.float16))
    want = oracle(cosines(vectors), tau, rule)
    np.testing.assert_array_equal(duplicates_within(vectors, tau, rule)[0], want)
    monkeypatch.setattr(blocks, "_FIRST", 1024)
    monkeypatch.setattr(blocks, "_LEAF", 64)
    bounds, tiling = Bounds(tau, True), Tiling(1024, 1024, 128, 1 << 20)
    prepared = Prepared(vectors, np.arange(900), bounds, tiling)
    np.testing.assert_array_equal(BLOCKS[rule](Screen(prepared, prepared, tau, bounds, tiling)), want)


@settings(max_examples=40)
@given(clusters(), TAU, st.data(), st.sampled_from([None, (16, 8), (128, 64)]), st.booleans())
def test_close_pairs_are_those_of_the_matrix(vectors, tau, data, sides, fast):
    cut = data.draw(st.integers(0, len(vectors)))
    a, b = vectors.take(slice(0, cut)), vectors.take(slice(cut, None))
    rows, base = np.flatnonzero(a.scale), np.flatnonzero(b.scale)
    if sides is None:
        parts = close_pairs(a, b, tau)
    else:
        assume(tau < 1 and len(rows) and len(base))
        parts = pairs_of(a, rows, b, base, tau, Bounds(tau, fast), Tiling(*sides, 4, 5000))
    want = cosines(vectors)[:cut, cut:]
    found = {(i, j): c for part in parts for i, j, c in zip(*map(np.ndarray.tolist, part), strict=True)}
    assert found == {(i, j): np.float32(want[i, j]) for i, j in np.argwhere(want > tau).tolist()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("rule", RULES)
def test_a_gpu_gives_the_same(rule):
    vectors = Vectors.of(topics(4000, seed=2, d=256).vectors)
    for one, other in zip(
        duplicates_within(vectors, 0.95, rule), duplicates_within(vectors, 0.95, rule, device="cuda"), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_rules_differ_along_a_chain():
    angles = np.deg2rad([0, 10, 20])
    vectors = Vectors.of(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32))
    tau = np.cos(np.deg2rad(15))
    assert duplicates_within(vectors, tau, "semdedup")[0].tolist() == [-1, 0, 1]
    assert duplicates_within(vectors, tau, "greedy")[0].tolist() == [-1, 0, -1]
    assert duplicates_within(vectors, tau, "components")[0].tolist() == [-1, 0, 0]
