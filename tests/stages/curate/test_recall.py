import numpy as np
import pytest

from stages.curate.recall import Recall, Share, against_everything
from stages.curate.vectors import Vectors


def test_counts_against_every_pair():
    rng = np.random.default_rng(0)
    n, k, tau = 300, 5, 0.997
    vectors = Vectors.of((rng.standard_normal((n, 3)) + np.eye(3)[0] * 2).astype(np.float16))
    cluster = np.sort(rng.integers(0, k, n)).astype(np.int32)
    kept = rng.random(n) < 0.3
    meets = rng.random((n, k)) < 0.2
    meets[np.arange(n), cluster] = False
    visits = np.sort(np.nonzero(meets)[1] * n + np.nonzero(meets)[0])
    place = np.sort(rng.choice(n, 40, replace=False))
    found = sum(
        against_everything(
            vectors.take(place), place, vectors.take(slice(lo, hi)), lo, cluster, kept, visits, tau, memory_mb=1
        )
        for lo, hi in ((0, 120), (120, n))
    )
    unit = vectors.unit(slice(None)).astype(np.float64)
    close = unit @ unit.T > tau
    np.fill_diagonal(close, False)
    seen = meets[:, cluster] | meets[:, cluster].T | (cluster[:, None] == cluster)
    want = np.stack([close.sum(1), (close & seen).sum(1), (close & kept).sum(1)], 1)[place]
    np.testing.assert_array_equal(found, want)
    recall = Recall.of(found, kept[place])
    assert recall.rows == Share(int((want[:, 1] > 0).sum()), int((want[:, 0] > 0).sum()))
    assert recall.pairs == Share(int(want[:, 1].sum()), int(want[:, 0].sum()))
    assert recall.residual == Share(int((want[kept[place], 2] > 0).sum()), int(kept[place].sum()))
    assert 0 < recall.rows.some < recall.rows.of


def test_intervals():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3
    for share, want in [
        (Share(81, 263), (0.2553, 0.3662)),
        (Share(15, 148), (0.0624, 0.1605)),
        (Share(0, 20), (0.0, 0.1611)),
        (Share(1, 29), (0.0061, 0.1718)),
    ]:
        assert share.interval() == pytest.approx(want, abs=1e-4)
    assert Share(29, 29).interval()[1] == 1
    assert Share(0, 0).interval() == (0, 1)


def test_unknown_shares_are_left_out():
    metrics = Recall.of(np.zeros((3, 3), np.int64), np.ones(3, bool)).metrics()
    assert "recall_rows" not in metrics
    assert metrics["recall_rows_of"] == 0
    assert metrics["residual"] == 0
    assert 0 < metrics["residual_high"] < 1
