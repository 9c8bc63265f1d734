import numpy as np

from benchmarks.curation.bordering import TAU, Setting, Truth
from benchmarks.curation.planted import topics


def test_brute_force_sees_what_a_search_left():
    setting = Setting.of(topics(2000, 3, d=64), 20)
    truth = Truth.of(setting.vectors)
    unit = setting.vectors.unit(slice(None)).astype(np.float64)
    close = np.triu(unit @ unit.T > TAU, 1)
    assert len(truth.one) == close.sum() > 200
    assert close[np.minimum(truth.one, truth.other), np.maximum(truth.one, truth.other)].all()
    by, visits = setting.search("none")
    kept, compared = by < 0, truth.compared(setting.cluster, visits)
    np.testing.assert_array_equal(compared, setting.cluster[truth.one] == setting.cluster[truth.other])
    np.testing.assert_array_equal(truth.beside(kept), ((close | close.T) & kept).any(1))
    np.testing.assert_array_equal(truth.touched(compared)[truth.one[compared]], True)
