"""Each check finds its fault and leaves good captions alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.checks import Caption, ChecksSection, FindingKind, check, faultiness
from fusion.priors import Priors, TextLine

GOOD = """A brown dog lies on a red carpet in front of a sofa. Its left ear hangs over a blue ball. Behind it, a poster
says "OPEN 24 HOURS" in white letters; the dog's collar is made of leather, and two cups stand beside the sofa."""


MARKS = ("[12, 340, 560, 720]", "<loc_12><loc_80>", "<|box_start|>", "at x=12")


def seen(*texts: str) -> Priors:
    return Priors(lines=[TextLine(text=t, score=0.9, polygon=[]) for t in texts])


def kinds(text: str, priors: Priors | None = None, finish: str = "stop", **limits: object) -> list[FindingKind]:
    section = ChecksSection.model_validate(limits)
    return [f.kind for f in check(Caption(text, finish), priors or Priors(), section)]


def test_a_good_caption_has_no_findings() -> None:
    assert kinds(GOOD, seen("OPEN", "24 HOURS")) == []


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty(text: str) -> None:
    assert kinds(text, finish="length") == [FindingKind.EMPTY]


def test_truncated() -> None:
    assert kinds(GOOD, seen("OPEN 24 HOURS"), finish="length") == [FindingKind.TRUNCATED]


@pytest.mark.parametrize("end", [" A white", " A white cup, a", " In front of it,"])
def test_a_text_that_ends_within_a_sentence_is_truncated(end: str) -> None:
    assert kinds(GOOD + end) == [FindingKind.TRUNCATED]


@pytest.mark.parametrize("text", ["A dog and a cat on a red carpet", GOOD + ' It says "STOP"', GOOD + " (a Dalmatian)"])
def test_a_text_without_full_stops_or_with_other_marks_is_whole(text: str) -> None:
    assert FindingKind.TRUNCATED not in kinds(text)


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


@pytest.mark.parametrize(
    "text",
    [
        "As an AI model I see a dog.",
        "I'm sorry, the dog is brown.",
        "I cannot see it.",
        "The bounding box shows a dog.",
        "Sure! A dog.",
        "The image shows bounding boxes.",
        "According to the alt text, it is a dog.",
        "Here's a detailed caption:",
        "Here is a hyper-detailed description of the image:",
        "**Caption:** A dog.",
        "The tags mention a beach.",
        "Contrary to the notes, it is a dog.",
        "The depth information shows it.",
        "The caption provided is wrong.",
        "<image> A dog.",
        "A dog.</s>",
        "[INST] Describe it. [/INST]",
    ],
)
def test_talk_about_itself_or_its_notes(text: str) -> None:
    assert FindingKind.REFUSAL in kinds(text + " " + GOOD)


@pytest.mark.parametrize(
    "text",
    [
        "A sign says \"I'm sorry, as an AI I can't\".",
        "A poster for an object lesson, with a prompt helper and a caption in red.",
        "Notes are pinned to the wall. Of course, the dog sleeps.",
        "The notes on the fridge are in blue; the tags of the shirts are white. Its caption: none.",
    ],
)
def test_a_sign_may_say_anything(text: str) -> None:
    assert FindingKind.REFUSAL not in kinds(f"{GOOD} {text}")


def test_a_turn_of_a_chat_is_talk() -> None:
    assert FindingKind.REFUSAL in kinds(f"{GOOD}\nUser: And the cat?\nAssistant: It sleeps.")


@pytest.mark.parametrize(
    "text", ["at [0.120, 0.300, 0.500, 1.000]", "(0.1, .3, 0.5, 1)", "0.120, 0.300, 0.500", *MARKS]
)
def test_printed_coordinates(text: str) -> None:
    assert FindingKind.COORDINATES in kinds(f"{GOOD} {text}")


@pytest.mark.parametrize("text", ["The score is 1, 0, 1.", "It costs 0.99 or 1.50.", "version 0.12.3"])
def test_ordinary_numbers_are_no_coordinates(text: str) -> None:
    assert FindingKind.COORDINATES not in kinds(f"{GOOD} {text}")


def test_length_in_words_and_in_scripts_without_them() -> None:
    assert kinds("A dog.") == [FindingKind.TOO_SHORT]
    assert kinds(GOOD, seen("OPEN 24 HOURS"), max_words=20) == [FindingKind.TOO_LONG]
    assert kinds("一只棕色的狗躺在沙发前面的红色地毯上它的左耳垂在蓝色的球上桌子上放着两个杯子", language=None) == []


@given(st.text(max_size=300), st.lists(st.text(max_size=20), max_size=3))
def test_any_text_can_be_checked(text: str, lines: list[str]) -> None:
    findings = check(Caption(text, "stop"), seen(*lines), ChecksSection())
    assert all(f.detail for f in findings)
    assert findings == check(Caption(text, "stop"), seen(*lines), ChecksSection())


def test_an_empty_caption_is_worse_than_one_with_many_faults() -> None:
    empty, faulty = (
        check(Caption(text, "length"), seen("BAKERY"), ChecksSection()) for text in ("", "A dog [0, 0, 1, 1]")
    )
    assert len(empty) < len(faulty)
    assert faultiness(empty) > faultiness(faulty) > faultiness([])


def test_every_finding_and_every_setting_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "checks.md").read_text()
    entries = " ".join(line for line in page.splitlines() if line.startswith("### "))
    assert [kind for kind in FindingKind if kind not in entries.replace(",", "").split()] == []
    assert [name for name in ChecksSection.model_fields if f"`{name}`" not in page] == []
