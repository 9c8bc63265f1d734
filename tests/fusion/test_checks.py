"""Each check finds its fault and leaves good captions alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.checks import Caption, ChecksSection, FindingKind, check, substring_distance
from fusion.priors import Priors, TextLine

GOOD = """A brown dog lies on a red carpet in front of a sofa. Its left ear hangs over a blue ball. Behind it, a poster
says "OPEN 24 HOURS" in white letters; the dog's collar is made of leather, and two cups stand beside the sofa."""


def seen(*texts: str) -> Priors:
    return Priors(lines=[TextLine(text=t, score=0.9, polygon=[]) for t in texts])


def kinds(text: str, priors: Priors | None = None, finish: str = "stop", **limits: int) -> list[FindingKind]:
    section = ChecksSection.model_validate(limits)
    return [f.kind for f in check(Caption(text, finish), priors or Priors(), section)]


def test_a_good_caption_has_no_findings() -> None:
    assert kinds(GOOD, seen("OPEN", "24 HOURS")) == []


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty(text: str) -> None:
    assert kinds(text, finish="length") == [FindingKind.EMPTY]


def test_truncated() -> None:
    assert kinds(GOOD, seen("OPEN 24 HOURS"), finish="length") == [FindingKind.TRUNCATED]


@pytest.mark.parametrize(
    "loop",
    [
        "and a cat " * 6,
        "red red red red red",
        "A tree stands on the left. " * 5,
        "A tree stands on the left. A house is near it. " * 5,
        "这是一只猫" * 8,
        "=" * 60,
    ],
)
def test_a_loop_is_repetition(loop: str) -> None:
    assert FindingKind.REPETITION in kinds(GOOD + " " + loop, seen("OPEN 24 HOURS"))


@pytest.mark.parametrize(
    "text", ["a very, very long road", "2000 1111 7777", "knock knock, ha ha ha", "https://a.example/--------"]
)
def test_ordinary_doubling_is_no_loop(text: str) -> None:
    assert FindingKind.REPETITION not in kinds(f"{GOOD} {text}")


@pytest.mark.parametrize("quoted", ['"CLOSED"', "“Zimmer frei”", "«Ouvert»", "「出口」", "the word 'forbidden'"])
def test_quoted_text_that_nobody_read(quoted: str) -> None:
    assert kinds(f"{GOOD} A sign says {quoted}.", seen("OPEN 24 HOURS")) == [FindingKind.UNSEEN_TEXT]


@pytest.mark.parametrize("quoted", ['"Open 24 Hours"', '"OPEN 24 H0URS"', '"hours"', "'OPEN'"])
def test_quoted_text_that_was_read_nearly_so(quoted: str) -> None:
    assert kinds(f"{GOOD} A sign says {quoted}.", seen("OPEN", "24 HOURS")) == []


def test_without_a_reader_nothing_is_said_about_quotes() -> None:
    assert kinds(GOOD, Priors(lines=None)) == []
    assert kinds(GOOD, Priors(lines=[])) == [FindingKind.UNSEEN_TEXT]


@pytest.mark.parametrize(
    "text",
    [
        "As an AI model I see a dog.",
        "I'm sorry, the dog is brown.",
        "I cannot see it.",
        "The bounding box shows a dog.",
        "Sure! A dog.",
    ],
)
def test_talk_about_itself_or_its_notes(text: str) -> None:
    assert FindingKind.REFUSAL in kinds(text + " " + GOOD)


@pytest.mark.parametrize("text", ["at [0.120, 0.300, 0.500, 1.000]", "(0.1, .3, 0.5, 1)", "0.120, 0.300, 0.500"])
def test_printed_coordinates(text: str) -> None:
    assert FindingKind.COORDINATES in kinds(f"{GOOD} {text}")


@pytest.mark.parametrize("text", ["The score is 1, 0, 1.", "It costs 0.99 or 1.50.", "version 0.12.3"])
def test_ordinary_numbers_are_no_coordinates(text: str) -> None:
    assert FindingKind.COORDINATES not in kinds(f"{GOOD} {text}")


def test_length_in_words_and_in_scripts_without_them() -> None:
    assert kinds("A dog.") == [FindingKind.TOO_SHORT]
    assert kinds(GOOD, seen("OPEN 24 HOURS"), max_words=20) == [FindingKind.TOO_LONG]
    assert kinds("一只棕色的狗躺在沙发前面的红色地毯上它的左耳垂在蓝色的球上桌子上放着两个杯子") == []


@given(st.text(alphabet="abc", min_size=1, max_size=6), st.text(alphabet="abc", max_size=9))
def test_substring_distance_is_the_least_over_all_substrings(needle: str, text: str) -> None:
    parts = {text[i:j] for i in range(len(text) + 1) for j in range(i, len(text) + 1)}
    assert substring_distance(needle, text) == min(_edits(needle, part) for part in parts)


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=3))
def test_any_text_can_be_checked(text: str, lines: list[str]) -> None:
    findings = check(Caption(text, "stop"), seen(*lines), ChecksSection())
    assert all(f.detail for f in findings)


def _edits(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(_edits(a[1:], b) + 1, _edits(a, b[1:]) + 1, _edits(a[1:], b[1:]) + (a[0] != b[0]))
