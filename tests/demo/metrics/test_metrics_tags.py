import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.metrics.tags import best_fixed_tags, tag_figures

TAGS = st.lists(st.sets(st.sampled_from("abcdef")), min_size=1, max_size=8).filter(any)


def test_tags_of_all_pictures_are_counted_together():
    figures = tag_figures([["cat", "cup"], ["dog"], []], [["cat"], ["dog", "cup"], ["car"]])
    assert (figures.precision, figures.recall) == (2 / 3, 2 / 4)
    assert figures.f1 == pytest.approx(4 / 7)


def test_case_outer_spaces_and_repeats_do_not_count():
    assert tag_figures([["Cat ", "cat"]], [["cat"]]).f1 == 1


def test_nothing_said_is_not_wrong_and_finds_nothing():
    figures = tag_figures([[]], [["cat"]])
    assert (figures.precision, figures.recall, figures.f1) == (1, 0, 0)
    assert tag_figures([["dog"]], [["cat"]]).f1 == 0


def test_the_best_fixed_set_takes_frequent_tags_while_they_pay():
    true = [["a", "b"], ["a", "b"], ["a", "c"], ["a"]]
    # a alone: 8/11; a and b: 12/15; with c 14/19
    assert best_fixed_tags(true) == ["a", "b"]


@given(TAGS)
def test_the_truth_is_perfect_and_no_fixed_set_is_better_than_the_best(true):
    assert tag_figures(true, true).f1 == 1
    best = tag_figures([best_fixed_tags(true)] * len(true), true).f1
    for number in range(1, 64):
        fixed = [tag for i, tag in enumerate("abcdef") if number >> i & 1]
        assert tag_figures([fixed] * len(true), true).f1 <= best + 1e-12


@pytest.mark.parametrize(("given_", "true"), [([["a"]], []), ([["a"]], [[]])])
def test_what_cannot_be_counted_is_refused(given_, true):
    with pytest.raises(ValueError, match=r"truth has|true tag"):
        tag_figures(given_, true)
