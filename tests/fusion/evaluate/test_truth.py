"""Truth records and vocabularies: what is wrong with them is said with file, line and word."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fusion.evaluate.section import EvaluateSection
from fusion.evaluate.truth import read_truth
from fusion.evaluate.vocabulary import Vocabulary, read_vocabulary
from schemas.errors import RequestError

VOCABULARY = Vocabulary(categories={"ball": []}, colours={"red": []}, attributes={"size": {"small": []}})


def written(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "truth.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_rows_are_read(tmp_path: Path) -> None:
    row = {
        "uid": "1",
        "image": "a.jpg",
        "objects": [{"category": "ball", "colour": "red", "attributes": {"size": None}, "box": [0, 0, 1, 1]}],
        "priors": {"ocr": {"lines": [{"text": "A", "score": 1.0, "polygon": []}]}},
    }
    (first, second) = read_truth(written(tmp_path, row, "", {"uid": "2"}), VOCABULARY)
    assert first.count("ball") == 1 and second.count("ball") == 0
    assert first.seen().seen_text() == ["A"]
    assert second.seen().seen_text() is None


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has no rows"),
        (["{"], "line 1: not JSON"),
        (['"x"'], "line 1 is no truth record"),
        ([{"uid": "1"}, {"uid": "1"}], "line 2: the uid 1 was there before"),
        ([{"uid": "1", "object": []}], "object: Extra inputs"),
        ([{"uid": "1", "objects": [{"category": "cat"}]}], "'cat' is not among the vocabulary's categories"),
        ([{"uid": "1", "objects": [{"category": "ball", "colour": "blue"}]}], "'blue' is not among"),
        ([{"uid": "1", "objects": [{"category": "ball", "attributes": {"age": "old"}}]}], "no kind of attribute 'age'"),
        ([{"uid": "1", "objects": [{"category": "ball", "attributes": {"size": "old"}}]}], "'old' is not among"),
        ([{"uid": "1", "objects": [{"category": "ball", "box": [0, 0, 2, 1]}]}], "less than or equal to 1"),
        ([{"uid": "1", "false_boxes": ["cat"]}], "'cat' is not among"),
        ([{"uid": "1", "relations": [[0, "left of", 1]]}], "no two of the 0 objects"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(tmp_path: Path, rows: list[Any], words: str) -> None:
    with pytest.raises(RequestError, match=r"truth\.jsonl") as error:
        read_truth(written(tmp_path, *rows), VOCABULARY)
    assert words in str(error.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="There is no truth file"):
        read_truth(tmp_path / "nothing.jsonl", VOCABULARY)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no vocabulary"),
        ("[", "is not valid YAML"),
        ("- ball", "must hold a mapping"),
        ("colours: {red: []}", "`categories` is required"),
        ("categories: {ball: [crate], crate: []}", "crate: listed twice"),
        ("categories: {ball: ['']}", "an empty name"),
        ("categories: {ball: []}\ncolors: {}", "`colors` is not a setting (did you mean `colours`?)"),
    ],
)
def test_what_is_wrong_with_a_vocabulary_is_said(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "vocabulary.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RequestError) as error:
        read_vocabulary(path)
    assert words in str(error.value)


def test_names_are_folded_and_a_word_may_be_a_colour_and_a_thing(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.yaml"
    path.write_text(yaml.safe_dump({"categories": {"Orange": [" Citrus  Fruit "]}, "colours": {"orange": []}}))
    assert read_vocabulary(path).categories == {"orange": ["citrus fruit"]}


def test_what_the_page_shows_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "evaluating.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    evaluation, vocabulary = (text for kind, text in blocks if kind == "yaml")
    section = EvaluateSection.model_validate(yaml.safe_load(evaluation))
    assert {one.kind for one in section.captioners.values()} == {"file", "engine", "checkpoint", "priors"}
    (tmp_path / "vocabulary.yaml").write_text(vocabulary)
    known = read_vocabulary(tmp_path / "vocabulary.yaml")
    (record,) = (json.loads(text) for kind, text in blocks if kind == "json")
    more = Vocabulary(
        categories={**known.categories, "sign": [], "car": [], "crate": []},
        colours=known.colours,
        attributes=known.attributes,
    )
    (row,) = read_truth(written(tmp_path, record), more)
    assert row.seen().seen_text() == ["OAK BAKERY"]
    assert set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE)) >= {"objects", "counts", "texts", "relations"}
