"""The duplicate engines against oracles that compare every pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.curate.exact import exact_duplicates
from stages.curate.perceptual import perceptual_duplicates
from stages.curate.semantic import semantic_duplicates
from stages.curate.vectors import normalised

# unit vectors whose cosines are exact in float32, so that ties and the strict threshold mean something
CORNERS = np.concatenate([np.stack(np.meshgrid(*[[-0.5, 0.5]] * 4), -1).reshape(-1, 4), np.eye(4), -np.eye(4)])
EXACT_VECTORS = st.lists(st.sampled_from(range(len(CORNERS))), max_size=40).map(
    lambda at: CORNERS[np.array(at, np.int64)].astype(np.float32)
)


def semantic_oracle(rows, threshold, rule):
    """Which rows go, pair by pair."""
    cosines = rows @ rows.T
    gone = np.zeros(len(rows), bool)
    for j in range(len(rows)):
        gone[j] = any(cosines[i, j] > threshold for i in range(j) if rule == "semdedup" or not gone[i])
    return gone


@pytest.mark.parametrize("rule", ["semdedup", "greedy"])
@given(EXACT_VECTORS, st.sampled_from([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(1, 9))
def test_semantic_equals_the_oracle(rule, rows, threshold, block):
    by, cosine = semantic_duplicates(rows, threshold, rule, block)
    gone = by >= 0
    np.testing.assert_array_equal(gone, semantic_oracle(rows, threshold, rule))
    matrix = rows @ rows.T
    for j in np.flatnonzero(gone):
        earlier = [i for i in range(j) if rule == "semdedup" or not gone[i]]
        # the most similar one, the earliest where several are
        assert by[j] == max(earlier, key=lambda i: (matrix[i, j], -i))
        assert cosine[j] == matrix[by[j], j]
    assert np.isnan(cosine[~gone]).all()


@pytest.mark.parametrize("rule", ["semdedup", "greedy"])
def test_semantic_on_many_blocks_of_drifting_rows(rule):
    rng = np.random.default_rng(7)
    steps = rng.standard_normal((300, 16)) * 0.12
    rows = normalised(np.cumsum(steps, axis=0) + rng.standard_normal(16) * (np.arange(300)[:, None] // 60))
    by, _ = semantic_duplicates(rows, 0.95, rule, block=32)
    want = semantic_oracle(rows, 0.95, rule)
    assert 0 < want.sum() < 299
    np.testing.assert_array_equal(by >= 0, want)


def test_the_two_rules_differ_along_a_chain():
    angles = np.deg2rad([0, 10, 20])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    threshold = np.cos(np.deg2rad(15))
    assert semantic_duplicates(rows, threshold, "semdedup")[0].tolist() == [-1, 0, 1]
    assert semantic_duplicates(rows, threshold, "greedy")[0].tolist() == [-1, 0, -1]


def test_identical_rows_collapse_to_the_first():
    rows = np.tile(normalised(np.random.default_rng(0).standard_normal((1, 64))), (2500, 1))
    for rule in ("semdedup", "greedy"):
        by, _ = semantic_duplicates(rows, 0.99, rule)
        assert by[0] == -1
        assert (by[1:] >= 0).all()


HASHES = st.lists(
    st.builds(
        lambda base, flips: base ^ sum(1 << f for f in flips),
        st.sampled_from([0, 2**64 - 1, 0xF0F0F0F0_12345678]),
        st.sets(st.integers(0, 63), max_size=6),
    ),
    max_size=40,
)


@given(HASHES, st.integers(0, 16))
def test_perceptual_equals_the_oracle(hashes, radius):
    by, distance = perceptual_duplicates(np.array(hashes, np.uint64), radius)
    kept: list[int] = []
    for j, value in enumerate(hashes):
        near = [i for i in kept if (hashes[i] ^ value).bit_count() <= radius]
        if not near:
            kept.append(j)
            assert by[j] == -1
            assert distance[j] == 0
        else:
            assert by[j] in near
            assert distance[j] == (hashes[by[j]] ^ value).bit_count()


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=20))
def test_exact_keeps_the_first_of_each(hashes):
    by = exact_duplicates(np.array(hashes, "S1"))
    assert by.tolist() == [-1 if hashes.index(h) == j else hashes.index(h) for j, h in enumerate(hashes)]
