import numpy as np

from benchmarks.curation.hashes import RADIUS, held_against_brute_force, planted
from stages.curate.perceptual import perceptual_duplicates


def test_brute_force_sees_a_wrong_verdict():
    hashes = planted(4000, seed=2)
    by, _ = perceptual_duplicates(hashes, RADIUS)
    near, wrong = held_against_brute_force(hashes, by)
    assert len(near) > 100
    assert wrong == 0
    gone = np.flatnonzero(by >= 0)
    by[gone[::4]] = -1
    assert held_against_brute_force(hashes, by)[1] > 50
