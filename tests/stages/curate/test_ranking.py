import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.curate.ranking import places_within, ranked, shuffled


def uids_of(n):
    return np.array([hashlib.md5(str(i).encode()).hexdigest() for i in range(n)], "S32")


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, float("nan")]), max_size=30), st.booleans(), st.randoms())
def test_an_order_does_not_depend_on_where_rows_lie(values, descending, random):
    uids, column = uids_of(len(values)), np.array(values, np.float32)
    order = ranked(column, uids, descending)
    shuffle = list(range(len(values)))
    random.shuffle(shuffle)
    moved = ranked(column[shuffle], uids[shuffle], descending)
    assert uids[shuffle][moved].tolist() == uids[order].tolist()
    stated = [v for v in column[order].tolist() if v == v]
    assert stated == sorted(stated, reverse=descending)
    assert np.isnan(column[order][len(stated) :]).all()


def test_shuffles_are_the_seeds_own_and_look_random():
    uids = uids_of(1000)
    one, two = shuffled(uids, 1), shuffled(uids, 2)
    assert sorted(one) == list(range(1000))
    assert uids[one].tolist() == uids[::-1][shuffled(uids[::-1], 1)].tolist()
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.1
    assert abs(np.corrcoef(one, np.argsort(uids))[0, 1]) < 0.1


@given(st.lists(st.integers(0, 3), max_size=30), st.randoms())
def test_places_count_within_each_group(groups, random):
    order = list(range(len(groups)))
    random.shuffle(order)
    places = places_within(np.array(order, np.int64), np.array(groups, np.int32))
    seen: dict[int, int] = {}
    for row in order:
        assert places[row] == seen.get(groups[row], 0)
        seen[groups[row]] = seen.get(groups[row], 0) + 1
