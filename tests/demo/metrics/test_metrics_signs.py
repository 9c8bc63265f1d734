import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.metrics.signs import error_rate, exact, lines_on, sign_text
from demo.truth import ObjectTruth, SceneTruth

WORDS = st.text("abC ", min_size=1, max_size=12)


def sign_at(x1: int, y1: int, x2: int, y2: int) -> ObjectTruth:
    return ObjectTruth("sign", "blue", "medium", (x1, y1, x2, y2), (x1, y1, x2, y2), 0.0, 3.0, "OLD MILL", "clean")


def line(text: str, x: float, y: float) -> dict:
    return {"text": text, "score": 1.0, "polygon": [x - 0.1, y, x, y - 0.1, x + 0.1, y, x, y + 0.1]}


def test_lines_of_the_panel_are_the_signs_and_those_of_its_posts_and_its_neighbour_are_not():
    left, right = sign_at(0, 0, 100, 100), sign_at(100, 0, 200, 100)
    truth = SceneTruth(1, "room", 200, 100, 50.0, (left, right))
    lines = [line("OLD", 0.25, 0.2), line("INN", 0.75, 0.3), line("MILL", 0.25, 0.6), line("dog", 0.25, 0.8)]
    assert sign_text(lines, left, truth) == "OLD MILL"
    assert sign_text(lines, right, truth) == "INN"
    assert lines_on(lines, left, truth) == [0, 2]
    assert sign_text([], left, truth) == ""


def test_exact_is_to_the_letter_but_not_to_the_space():
    assert exact("OLDMILL", "OLD MILL")
    assert not exact("Old Mill", "OLD MILL")
    assert not exact("OLD MILK", "OLD MILL")


def test_error_rates_worked_out_by_hand():
    assert error_rate("kitten", "sitting") == 3 / 7
    assert error_rate("", "ab") == 1
    assert error_rate("a x b", "ab") == 0.5
    assert error_rate("abcd", "b") == 3
    with pytest.raises(ValueError, match="true text"):
        error_rate("a", " ")


@given(WORDS, WORDS.filter(str.strip))
def test_only_what_is_exact_has_no_error(read, true):
    rate = error_rate(read, true)
    assert (rate == 0) == exact(read, true)
    longest, least = sorted((len(read.replace(" ", "")), len(true.replace(" ", ""))), reverse=True)
    assert longest - least <= round(rate * len(true.replace(" ", ""))) <= longest
