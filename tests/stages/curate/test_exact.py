import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.curate.exact import exact_duplicates


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=20))
def test_the_first_of_each_stays(hashes):
    by = exact_duplicates(np.array(hashes, "S1"))
    assert by.tolist() == [-1 if hashes.index(h) == j else hashes.index(h) for j, h in enumerate(hashes)]
