import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.curate.ranking import places_within, ranked, shuffle_keys, shuffled, sorted_by


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


def test_shuffle_keys_are_splitmix64_of_the_first_64_bits():
    """Pinned: another key would draw another sample from every run."""
    whole = 2**64 - 1
    for uid, key in zip(uids_of(20).tolist(), shuffle_keys(uids_of(20), 5).tolist(), strict=True):
        x = (int(uid[:16], 16) + 5 * 0x9E3779B97F4A7C15) & whole
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & whole
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & whole
        assert key == x ^ (x >> 31)


TEXTS = st.sampled_from([b"aaaaaaaabbbbbbbb", b"aaaaaaaacccccccc", b"zaaaaaaa"])


@given(st.lists(st.tuples(st.sampled_from([0.0, -0.0, 1.0, float("nan")]), TEXTS), max_size=30))
def test_ties_go_by_text(rows):
    """Rows that tie in both may stand in any order, so what is compared is not places."""
    values, text = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], "S16")
    ours, want = sorted_by(values, text), np.lexsort((text, values))
    assert sorted(ours.tolist()) == list(range(len(rows)))
    np.testing.assert_array_equal(values[ours], values[want])
    assert text[ours].tolist() == text[want].tolist()


@given(st.lists(st.integers(0, 3), max_size=30), st.randoms(), st.integers(0, 30))
def test_places_count_within_each_group(groups, random, most):
    order = list(range(len(groups)))
    random.shuffle(order)
    order = order[:most]
    places = places_within(np.array(order, np.int64), np.array(groups, np.int32))
    seen: dict[int, int] = {}
    for row in order:
        assert places[row] == seen.get(groups[row], 0)
        seen[groups[row]] = seen.get(groups[row], 0) + 1
    for row in set(range(len(groups))) - set(order):
        assert places[row] == -1
