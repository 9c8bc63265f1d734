"""The duplicate engines against oracles that compare every pair."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.curate.exact import exact_duplicates
from stages.curate.perceptual import perceptual_duplicates

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
