"""What the fast products promise: they are nowhere below cosine - tau, and not far above it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.curate.semantic.bounds import Bounds, false_share, leading_directions, product
from stages.curate.vectors import Vectors


def unit_rows(seed, n, d, spread):
    """Rows around a common direction, some of them copies but for little."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(d) + spread * rng.standard_normal((n, d)) / (1 + np.arange(d)) ** 0.5
    half = n // 2
    rows[half : 2 * half] = rows[:half] * (1 + rng.choice([1e-4, 1e-2, 0.1]) * rng.standard_normal((half, d)))
    return Vectors.of(rows.astype(np.float32)).unit(slice(None))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("short", [True, False])
@settings(max_examples=25)
@given(
    st.integers(0, 2**32),
    st.integers(1, 70),
    st.sampled_from([1, 2, 31, 200]),
    st.sampled_from([0.0, 0.3, 1.0, 10.0]),
    st.floats(0, 1),
)
def test_no_close_pair_is_missed(fast, short, seed, n, d, spread, tau):
    unit = unit_rows(seed, n, d, spread)
    cosine = unit.astype(np.float64) @ unit.T.astype(np.float64)
    bounds = Bounds(tau, fast, directions=leading_directions(unit, min(d, 9)) if short else None)
    left = bounds.left(unit)
    right = bounds.right(left)
    assert ((left.double() @ right.double().T).numpy() >= cosine - tau).all()
    passed = product(left, right, torch.empty(n * n, dtype=left.dtype)).float().numpy()
    assert (passed > 0)[cosine > tau].all()
    if not short:
        assert not (passed > 0)[cosine < tau - (0.01 if fast else 0.001)].any()


def test_the_directions_hold_what_the_rows_share():
    rng = np.random.default_rng(0)
    low = rng.standard_normal((400, 8)) @ rng.standard_normal((8, 200))
    unit = Vectors.of((low + 0.01 * rng.standard_normal((400, 200))).astype(np.float32)).unit(slice(None))
    found = leading_directions(unit, 8)
    np.testing.assert_allclose(found.T @ found, np.eye(8), atol=1e-12)
    assert np.linalg.norm(unit @ found, axis=1).min() > 0.999
    assert false_share(Bounds(0.9, True, directions=found), unit, 0.9) < 0.01
    assert false_share(Bounds(0.9, True, directions=leading_directions(unit, 1)), unit, 0.9) > 0.3
