import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.metrics.clusters import majority, purity

ITEMS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), min_size=1, max_size=30)


def test_each_cluster_counts_its_largest_class():
    assert purity([0, 0, 0, 1, 1, 1], ["a", "a", "b", "b", "c", "c"]) == 4 / 6
    assert majority(["a", "b", "a", "c"]) == 0.5


@given(ITEMS)
def test_names_of_clusters_do_not_matter_and_splitting_one_never_lowers_it(items):
    clusters, classes = map(list, zip(*items, strict=True))
    pure = purity(clusters, classes)
    assert majority(classes) <= pure <= 1
    assert purity([f"cluster {c}" for c in clusters], classes) == pure
    assert purity(list(range(len(items))), classes) == 1
    assert purity(classes, classes) == 1
    assert purity([(c, i % 2) for i, c in enumerate(clusters)], classes) >= pure


@pytest.mark.parametrize(("clusters", "classes"), [([], []), ([1], [])])
def test_nothing_has_no_purity(clusters, classes):
    with pytest.raises(ValueError, match="above 0"):
        purity(clusters, classes)
