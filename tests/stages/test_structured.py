"""Captions as JSON of a schema; what a real vLLM makes of one is in test_structured_vllm.py."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import SetupError
from stages.base import ShardOutput
from stages.caption import CaptionStage
from stages.caption_section import CaptionSection
from stages.structured import StructuredSection
from tests.fakes import chat_engine
from tests.fakes.perceived import PRIORS, CountedImages, account, perceived
from tests.fakes.recording_engine import Recorded, recording_engine, texts_of

TEXT = {"type": "string"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"caption": TEXT, "people": {"type": "integer", "minimum": 0}},
    "required": ["caption", "people"],
    "additionalProperties": False,
}
GOOD = json.dumps({"caption": "A plain picture of one colour.", "people": 0})


@pytest.fixture
def engine() -> Iterator[Recorded]:
    with recording_engine(4096, lambda text: len(text) // 4) as recorded:
        yield recorded


def stage_of(url: str, **settings: Any) -> CaptionStage:
    given = {"engine": {"model": "org/name", "base_url": url}, "structured": {"json_schema": SCHEMA}, "concurrency": 2}
    stage = CaptionStage(CaptionSection.model_validate(given | settings), PRIORS)
    stage.open()
    return stage


def by_alt(answers: dict[str, str]) -> Callable[[dict[str, Any]], str]:
    """Keeps to the schema where it is asked to, but for the rows with these alt texts."""

    def answer(body: dict[str, Any]) -> str:
        if "response_format" not in body:
            return "grey"
        said = next((text for alt, text in answers.items() if alt in texts_of(body)[1]), GOOD)
        return said if len(body["messages"]) == 2 else GOOD

    return answer


def caption(stage: CaptionStage, scratch: Path, alts: list[str | None]) -> ShardOutput:
    try:
        return stage.process(perceived(scratch, alts, CountedImages()))
    finally:
        stage.close()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array"}, "must describe an object with a string property 'caption'"),
        (SCHEMA | {"properties": {"people": TEXT}}, "must describe an object with a string property 'caption'"),
        (SCHEMA | {"properties": {"caption": {"type": "number"}}}, "a string property 'caption'"),
        (SCHEMA | {"required": ["people"]}, "must require 'caption'"),
        (SCHEMA | {"properties": {"caption": {"type": "str"}}}, "no JSON Schema: 'str' is not valid"),
        (SCHEMA | {"required": "caption"}, "no JSON Schema"),
        (SCHEMA | {"properties": {"caption": TEXT, "x": {"pattern": "("}}}, "no JSON Schema"),
        (SCHEMA | {"properties": {"caption": TEXT, "x": {"$ref": "#/$defs/x"}}}, "refers to '#/$defs/x'"),
        (SCHEMA | {"properties": {"caption": TEXT, "x": {"$ref": "https://example.org/x"}}}, "refers to 'https:"),
    ],
)
def test_a_schema_that_cannot_hold_a_caption_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        StructuredSection(json_schema=schema)
    assert said in str(refused.value)


def test_the_caption_may_have_another_name_and_parts_may_be_defined_once() -> None:
    schema = {
        "type": "object",
        "$defs": {"part": {"type": "object", "properties": {"name": TEXT, "parts": {"$ref": "#/$defs/parts"}}}}
        | {"parts": {"type": "array", "items": {"$ref": "#/$defs/part"}}},
        "properties": {"text": TEXT, "parts": {"$ref": "#/$defs/parts"}},
        "required": ["text"],
    }
    section = StructuredSection(json_schema=schema, caption="text")
    assert section.caption_of('{"text": "A dog.", "parts": [{"name": "ear", "parts": []}]}') == "A dog."
    with pytest.raises(ValueError, match="not of the schema"):
        section.caption_of('{"text": "A dog.", "parts": [{"name": 1}]}')


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("A plain picture.", "no JSON: Expecting value"),
        (GOOD[:-8], "no JSON"),
        ("```json\n" + GOOD + "\n```", "no JSON"),
        ("[" * 100_000, "no JSON: nested too deeply"),
        ('{"people": 0}', "not of the schema: 'caption' is a required property"),
        ('{"caption": null, "people": 0}', "not of the schema: None is not of type 'string'"),
        ('{"caption": "a", "people": -1}', "not of the schema: -1 is less than the minimum of 0"),
        ('{"caption": "a", "people": 0, "dogs": 1}', "not of the schema: Additional properties"),
        ('"caption"', "not of the schema"),
        ('{"caption": "half \\ud83d", "people": 0}', "half a character"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(answer: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as wrong:
        StructuredSection(json_schema=SCHEMA).caption_of(answer)
    assert said in str(wrong.value)


@given(
    st.text()
    | st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        json.dumps
    )
)
def test_no_answer_is_more_than_a_caption_or_a_value_error(answer: str) -> None:
    try:
        caption = StructuredSection(json_schema=SCHEMA).caption_of(answer)
    except ValueError:
        return
    assert caption == json.loads(answer)["caption"]


def test_an_answer_of_the_schema_is_kept_whole_and_its_caption_is_checked(tmp_path: Path, engine: Recorded) -> None:
    engine.answer = by_alt(
        {"twice": json.dumps({"caption": " A dog and a dog and a dog and a dog and a dog. ", "people": 2})}
    )
    output = caption(stage_of(engine.base_url), tmp_path, ["plain", "twice"])
    became = account(output, 2)
    assert became == {0: "A plain picture of one colour.", 1: "A dog and a dog and a dog and a dog and a dog."}
    about_rows = [*engine.about("plain"), *engine.about("twice")]
    assert [body["response_format"] for body in about_rows] == 2 * [
        {"type": "json_schema", "json_schema": {"name": "caption", "schema": SCHEMA, "strict": True}}
    ]
    rows = output.rows.to_pylist()
    assert [json.loads(row["structured"])["people"] for row in rows] == [0, 2]
    assert "repetition" in {finding["kind"] for finding in rows[1]["findings"]}
    assert "repetition" not in {finding["kind"] for finding in rows[0]["findings"]}


def test_an_answer_that_is_not_of_the_schema_stops_its_row_alone(tmp_path: Path, engine: Recorded) -> None:
    engine.answer = by_alt({"prose": "Once upon a time.", "part": '{"caption": "A dog."}'})
    output = caption(stage_of(engine.base_url), tmp_path, ["plain", "prose", "part"])
    assert account(output, 3) == {
        0: "A plain picture of one colour.",
        1: "[caption_rejected]",
        2: "[caption_rejected]",
    }
    details = [drop.detail for drop in output.drops]
    assert details[0].startswith("malformed: The answer is no JSON")
    assert details[1].startswith("malformed: The answer is not of the schema: 'people'")


def test_a_malformed_answer_may_be_repaired(tmp_path: Path, engine: Recorded) -> None:
    engine.answer = by_alt({"prose": "Once upon a time."})
    output = caption(stage_of(engine.base_url, repair_on=["malformed"]), tmp_path, ["prose"])
    assert account(output, 1) == {0: "A plain picture of one colour."}
    assert output.rows.column("repaired").to_pylist() == [True]
    [again] = [body for body in engine.requests if len(body["messages"]) > 2]
    assert again["messages"][2]["content"] == "Once upon a time."
    assert "The answer is no JSON" in again["messages"][3]["content"]


def test_without_rejection_a_malformed_answer_is_an_empty_caption_with_its_finding(
    tmp_path: Path, engine: Recorded
) -> None:
    engine.answer = by_alt({"prose": "Once upon a time."})
    output = caption(stage_of(engine.base_url, reject_on=[]), tmp_path, ["prose"])
    [row] = output.rows.to_pylist()
    assert row["caption"] == ""
    assert row["structured"] == "Once upon a time."
    assert [finding["kind"] for finding in row["findings"]] == ["malformed"]


def test_an_engine_that_takes_no_notice_of_the_schema_stops_the_run(tmp_path: Path) -> None:
    with chat_engine.running() as url:  # it answers with the question
        with pytest.raises(
            SetupError, match=r"does not hold its answers to caption\.structured\.json_schema"
        ) as stopped:
            caption(stage_of(url), tmp_path, ["a", "b"])
        assert "no JSON" in str(stopped.value)
        assert "response_format" in str(stopped.value)
        assert all("LINE" not in one["text"] for one in chat_engine.asked(url))  # no row was asked about


def test_an_answer_that_the_token_limit_cut_is_no_fault_of_the_engine(tmp_path: Path, engine: Recorded) -> None:
    """The canary lets it pass; the row has its finding."""
    engine.answer, engine.finish_reason = GOOD[:20], "length"
    output = caption(stage_of(engine.base_url), tmp_path, ["a"])
    assert account(output, 1) == {0: "[caption_rejected]"}
    assert "malformed" in output.drops[0].detail


def test_what_captions_are_held_to_decides_what_they_say() -> None:
    given: dict[str, Any] = {"engine": {"model": "org/name"}}
    decided = [
        json.dumps(CaptionSection.model_validate(given | more).decides(), sort_keys=True)
        for more in (
            {},
            {"structured": {"json_schema": SCHEMA}},
            {"structured": {"json_schema": SCHEMA | {"title": "x"}}},
        )
    ]
    assert len(set(decided)) == 3
