"""The planted vectors hold what they say they hold."""

import numpy as np
import pytest

from benchmarks.curation import planted


@pytest.mark.parametrize("make", [planted.topics, planted.continuous])
def test_what_is_planted_is_there(make):
    data = make(5000, seed=3, d=128)
    rows = data.vectors.astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)
    cosines = rows @ rows.T
    assert 0.3 < np.median(cosines) < 0.45

    starred = np.flatnonzero(data.group >= 0)
    centre = np.full(data.group.max() + 1, -1)
    centre[data.group[starred[data.distinct[starred]]]] = starred[data.distinct[starred]]
    assert cosines[starred, centre[data.group[starred]]].min() > 0.968
    assert len(starred) == pytest.approx(0.3 * 5000, rel=0.05)

    chained = np.flatnonzero(data.chain >= 0)
    assert len(chained) == pytest.approx(0.2 * 5000, rel=0.1)
    in_one = data.chain[chained, None] == data.chain[chained]
    np.fill_diagonal(in_one, False)
    assert np.where(in_one, cosines[np.ix_(chained, chained)], 0).max(1).min() > 0.97
    assert cosines[np.ix_(chained, chained)][in_one].min() < 0.8  # it drifts

    single = (data.group < 0) & (data.chain < 0)
    assert data.distinct[single].all()
    assert data.distinct.sum() == single.sum() + data.group.max() + 1 + data.distinct[chained].sum()


def test_the_same_seed_gives_the_same_bytes():
    assert (planted.topics(2000, 1, 64).vectors == planted.topics(2000, 1, 64).vectors).all()
    assert not (planted.topics(2000, 1, 64).vectors == planted.topics(2000, 2, 64).vectors).all()
