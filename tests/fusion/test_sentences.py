import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.sentences import sentences, words

# Marks, spaces and scripts in any order, beside text of any kind.
TEXTS = st.text() | st.text(st.sampled_from("aZ9 .!?…。！？\n\r\t\"'’)]*_-—–é図カ・ิก🙂\u0301\u200d"))
LARGE = 1_000_000


def trimmed(text: str) -> list[str]:
    return [sentence.strip() for sentence in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n… 🙂 --", []),
        ("A cat", ["A cat"]),
        ("A cat. A dog!  A fish?", ["A cat.", "A dog!", "A fish?"]),
        ('A sign says "Stop!" in red. (It is new.) “Go!” The end… Fine', None),
        ("Dr. Smith and J. K. Rowling live in St. Ives.", ["Dr. Smith and J. K. Rowling live in St. Ives."]),
        ("A house, i.e. a home, at 3.5 km. No. 5 is red.", ["A house, i.e. a home, at 3.5 km.", "No. 5 is red."]),
        ("Is it? No. It is 1999. He left.", ["Is it?", "No.", "It is 1999.", "He left."]),
        ("1. A cup.\n2. A dog\n\n- A cat", ["1. A cup.", "2. A dog", "- A cat"]),
        ("図書館は大きい。「はい！」彼は言う", ["図書館は大きい。", "「はい！」", "彼は言う"]),
    ],
)
def test_sentences_end_where_readers_see_their_end(text: str, expected: list[str] | None) -> None:
    if expected is None:
        expected = ['A sign says "Stop!" in red.', "(It is new.)", "“Go!”", "The end…", "Fine"]
    assert trimmed(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A close-up; it isn't 1,200.5 km — about", ["A", "close-up;", "it", "isn't", "1,200.5", "km", "about"]),
        ("the table—a wooden one", ["the", "table", "a", "wooden", "one"]),
        ("- * & 🙂 … **bold** _x_", ["**bold**", "_x_"]),
        ("図書館 at night", ["図書", "館", "at", "night"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
    ],
)
def test_words_stand_between_spaces_and_dashes(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(TEXTS)
def test_sentences_hold_every_word_once_and_nothing_is_changed(text: str) -> None:
    found = list(sentences(text))
    assert sum(len(words(sentence)) for sentence in found) == len(words(text))
    place = 0
    for sentence in found:
        place = text.index(sentence, place) + len(sentence)
        assert words(sentence)


@given(TEXTS)
def test_a_word_holds_a_letter_or_digit_and_no_space(text: str) -> None:
    for word in words(text):
        assert any(map(str.isalnum, word)) and not any(map(str.isspace, word))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", ["a", ".", "a.", "a. ", ". ", '."', "\n", "図", "_", "🙂", "ิ", "1. "])
def test_a_megabyte_of_anything_takes_no_more_than_linear_time(unit: str) -> None:
    text = unit * (LARGE // len(unit))
    assert sum(1 for _ in sentences(text)) <= LARGE
    assert len(words(text)) <= LARGE
