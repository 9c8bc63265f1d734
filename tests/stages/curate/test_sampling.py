import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.curate.ranking import places_within
from stages.curate.sampling import taking, taking_order

CLUSTERS = 9
TREES = st.sampled_from(
    [
        np.empty((0, 0), np.int32),
        np.array([[0, 0, 0, 1, 1, 2, 2, 2, 2]], np.int32).T,
        np.array([[0, 0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 2, 2, 3, 3]], np.int32).T,
    ]
)
ROWS = st.lists(st.integers(0, CLUSTERS - 1), max_size=60)


def orders(rows, seed):
    rng = np.random.default_rng(seed)
    return rng.permutation(rows), rng.permutation(rows)


def shares_are_even(taken, sizes):
    """By binary search, the largest cut c with sum(min(c, size)) <= what is taken; larger groups give c or c + 1."""
    low, high = 0, sum(taken) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(min(middle, size) for size in sizes) <= sum(taken) else (low, middle)
    return all(share in ({low, low + 1} if size > low else {size}) for share, size in zip(taken, sizes, strict=True))


@settings(max_examples=60)
@given(ROWS, TREES, st.integers(0, 9))
def test_any_number_of_first_rows_is_spread_evenly_at_every_level(clusters, parents, seed):
    cluster = np.array(clusters, np.int32)
    order, ties = orders(len(cluster), seed)
    rank = places_within(order, cluster)
    turns = taking_order(rank, cluster, ties, parents)
    assert sorted(turns) == list(range(len(cluster)))
    levels = [np.zeros(len(cluster), np.int32), *(groups[cluster] for groups in parents.T), cluster]
    for first in range(len(turns) + 1):
        taken = turns[:first]
        for above, below in itertools.pairwise(levels):
            for group in set(above):
                inside = sorted(set(below[above == group]))
                shares = [int((below[taken] == g).sum()) for g in inside]
                assert shares_are_even(shares, [int((below == g).sum()) for g in inside])
        for c in set(clusters):
            ranks = sorted(rank[taken[cluster[taken] == c]])
            assert ranks == list(range(len(ranks)))


def test_the_tree_spreads_over_groups_and_not_over_clusters():
    cluster = np.repeat(np.arange(10, dtype=np.int32), 5)
    one = np.arange(50)
    rank = places_within(one, cluster)
    parents = np.array([[0]] * 9 + [[1]], np.int32)  # nine clusters of one subject, one of another
    flat, tree = (taking_order(rank, cluster, one, p)[:10] for p in (parents[:, :0], parents))
    assert np.bincount(cluster[flat], minlength=10).tolist() == [1] * 10
    assert np.bincount(parents[cluster[tree], 0]).tolist() == [5, 5]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 2)), max_size=40),
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 4),
    st.integers(0, 9),
)
def test_caps_cut_domains_first_and_then_clusters(rows, per_cluster, per_domain, seed):
    cluster, domain = (np.array([r[i] for r in rows], np.int32) for i in (0, 1))
    order, ties = orders(len(rows), seed)
    found = taking(order, cluster, ties, np.empty((0, 0), np.int32), per_cluster, domain, per_domain)
    tie = {row: at for at, row in enumerate(ties.tolist())}
    rank: dict[int, int] = {}
    for row in order.tolist():
        rank[row] = sum(cluster[other] == cluster[row] for other in rank)
    assert found.rank.tolist() == [rank[row] for row in range(len(rows))]
    left = []
    for row in order.tolist():
        before = [o for o in rank if domain[o] == domain[row] >= 0 and (rank[o], tie[o]) < (rank[row], tie[row])]
        if per_domain is None or len(before) < per_domain:
            left.append(row)
    stays = []
    for at, row in enumerate(left):
        if per_cluster is None or sum(cluster[o] == cluster[row] for o in left[:at]) < per_cluster:
            stays.append(row)
    assert np.flatnonzero(found.place >= 0).tolist() == sorted(stays)
    assert sorted(found.place[stays].tolist()) == list(range(len(stays)))
    assert found.left == len(stays)
    assert found.domains is not None
    assert np.flatnonzero(found.domains.cut).tolist() == sorted(set(range(len(rows))) - set(left))
    assert np.flatnonzero(found.clusters.cut).tolist() == sorted(set(left) - set(stays))


@pytest.mark.parametrize("levels", [0, 2])
def test_nothing_in_nothing_out(levels):
    none = np.empty(0, np.int32)
    found = taking(none.astype(int), none, none.astype(int), np.zeros((4, levels), np.int32), 3, none, 3)
    assert found.left == len(found.place) == 0
