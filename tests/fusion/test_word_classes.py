"""The tagger held against sentences that a person labelled, in the manner of dense captions."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.sentences import words
from fusion.word_classes import MOST_WORDS, WordClass, word_classes
from tests.fusion.test_sentences import TEXTS

LABELS = {"n": "noun", "adj": "adjective", "adv": "adverb", "v": "verb", "num": "number", "o": "other"}
LABELLED = (Path(__file__).parent / "tagged_captions.txt").read_text().splitlines()
"""One sentence a line; each word is followed by a bar and its label, before the marks that touch it."""


def labelled(line: str) -> tuple[str, list[WordClass]]:
    return re.sub(r"\|[a-z]+", "", line), [WordClass(LABELS[name]) for name in re.findall(r"\|([a-z]+)", line)]


def test_nine_words_of_ten_are_told_right_and_no_share_is_far_off() -> None:
    pairs, told, true = [], Counter[WordClass](), Counter[WordClass]()
    for text, expected in map(labelled, LABELLED):
        found = list(word_classes(text))
        assert len(found) == len(expected) == len(words(text))
        pairs += zip(found, expected, strict=True)
        told.update(found)
        true.update(expected)
    assert len(pairs) > 400
    assert sum(a == b for a, b in pairs) / len(pairs) > 0.93  # 0.967
    assert all(abs(told[name] - true[name]) / len(pairs) < 0.01 for name in WordClass)  # 0.005


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It isn't the cat's.", "other verb other noun"),
        ("They cannot see Berlin’s 2nd “tower”.", "other verb verb noun adjective noun"),
        ("The year 1998, 50% and $5", "other noun number number other number"),
        ("He sits down.", "other verb other"),
        ("", ""),
        ("🙂 … --", ""),
    ],
)
def test_classes_are_as_the_docstring_says(text: str, expected: str) -> None:
    assert " ".join(word_classes(text)) == expected


@given(TEXTS | st.text(max_size=30))
def test_every_word_of_any_text_has_a_class(text: str) -> None:
    assert len(list(word_classes(text))) == min(len(words(text)), MOST_WORDS)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["a", "a ", "a. ", "図", "1", ".", "'s", "x-"])
def test_a_megabyte_of_anything_is_tagged_up_to_a_bound(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    assert len(list(word_classes(text))) == min(len(words(text)), MOST_WORDS)
