"""Quoted text against what was read, and what was read against what is quoted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.checks import Caption, ChecksSection, Finding, FindingKind, check
from fusion.checks.text_distance import letters, substring_distance
from fusion.priors import Priors, TextLine


def line(text: str, score: float = 0.9, height: float = 0.1) -> TextLine:
    return TextLine(text=text, score=score, polygon=[0.1, 0.1, 0.5, 0.1, 0.5, 0.1 + height, 0.1, 0.1 + height])


def found(text: str, *lines: TextLine, **settings: object) -> list[Finding]:
    section = ChecksSection.model_validate({"min_words": 0, "language": None, **settings})
    return check(Caption(text, "stop"), Priors(lines=list(lines)), section)


def kinds(text: str, *lines: TextLine, **settings: object) -> list[FindingKind]:
    return [one.kind for one in found(text, *lines, **settings)]


@pytest.mark.parametrize("quoted", ['"CLOSED"', "“Zimmer frei”", "«Ouvert»", "「出口」", "the word 'forbidden'"])
def test_text_that_nobody_read(quoted: str) -> None:
    said = f'"OPEN 24 HOURS", and a sign says {quoted}.'
    assert kinds(said, line("OPEN 24 HOURS")) == [FindingKind.UNSEEN_TEXT]


@pytest.mark.parametrize("quoted", ["Open 24 Hours", "OPEN 24 H0URS", "hours", "OPEN", "HOURS OPEN", "OPEN-24-HOURS!"])
def test_text_that_was_read(quoted: str) -> None:
    assert FindingKind.UNSEEN_TEXT not in kinds(f'It says "{quoted}".', line("OPEN"), line("24 HOURS"))
    assert FindingKind.MISQUOTED_TEXT not in kinds(f'It says "{quoted}".', line("OPEN"), line("24 HOURS"))


@pytest.mark.parametrize("quoted", ["OAK BEKERY", "OAK BAKER", "AK BAKERY", "OAK BAKKERY", "OKA BAKERY"])
def test_text_that_was_read_otherwise(quoted: str) -> None:
    [finding] = found(f'It says "{quoted}".', line("OAK"), line("BAKERY"))
    assert finding.kind == FindingKind.MISQUOTED_TEXT
    assert "OAK BAKERY" in finding.detail


def test_accents_that_a_reader_leaves_off_are_no_error() -> None:
    assert kinds('It says "Château Ångström".', line("CHATEAU ANGSTROM")) == []
    assert kinds('It says "か".', line("が")) == [FindingKind.UNSEEN_TEXT]


def test_words_that_a_reader_ran_together_may_be_quoted_alone() -> None:
    assert kinds('It says "OAK BAKERY" and "BAKERY".', line("OAKBAKERY")) == []


def test_without_a_reader_nothing_is_said_of_quotes() -> None:
    section = ChecksSection(min_words=0)
    assert check(Caption('It says "OPEN".', "stop"), Priors(lines=None), section) == []
    assert kinds('It says "OPEN".') == [FindingKind.UNSEEN_TEXT]
    florence = Priors(description_lines=[line("OPEN")])
    assert check(Caption('It says "OPEN".', "stop"), florence, section) == []


def test_a_line_that_is_not_quoted() -> None:
    assert kinds("A white sign.", line("BAKERY")) == [FindingKind.TEXT_LEFT_OUT]
    assert kinds("The sign of a bakery.", line("BAKERY")) == []
    assert kinds('It says "BEKERY".', line("BAKERY")) == [FindingKind.MISQUOTED_TEXT]


def test_lines_that_need_not_be_quoted() -> None:
    assert kinds("A white sign.", line("80"), line("BAKERY", score=0.3)) == []
    page = [line(f"sentence number {i}", height=0.01 + i / 1000) for i in range(40)]
    assert len(kinds("A page.", *page)) == 6
    assert kinds("A page.", *page, left_out_lines=0) == []
    assert "number 39" in found("A page.", *page, left_out_lines=1)[0].detail


@given(st.text(alphabet="abc", min_size=1, max_size=6), st.text(alphabet="abc", max_size=9))
def test_substring_distance_is_the_least_over_all_substrings(needle: str, text: str) -> None:
    parts = {text[i:j] for i in range(len(text) + 1) for j in range(i, len(text) + 1)}
    assert substring_distance(needle, text) == min(_edits(needle, part) for part in parts)


@given(st.lists(st.text(alphabet="abcDEF 123", min_size=1, max_size=12).filter(letters), min_size=1, max_size=4))
def test_whoever_quotes_what_was_read_is_right(lines: list[str]) -> None:
    text = " ".join(f'A line says "{one}".' for one in lines)
    wrong = {FindingKind.UNSEEN_TEXT, FindingKind.MISQUOTED_TEXT, FindingKind.TEXT_LEFT_OUT}
    assert not wrong & set(kinds(text, *map(line, lines)))


def _edits(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(_edits(a[1:], b) + 1, _edits(a, b[1:]) + 1, _edits(a[1:], b[1:]) + (a[0] != b[0]))
