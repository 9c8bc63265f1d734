"""Rows that are too long for their engine are cut and captioned; what can never fit is refused before the run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusion.priors import Priors
from fusion.prompt import Prompt
from schemas.errors import RequestError, SetupError
from stages.caption import CaptionStage
from stages.caption_section import CaptionSection
from tests.fakes.byte_tokenizer import byte_tokenizer
from tests.fakes.perceived import PRIORS, CountedImages, account, perceived
from tests.fakes.recording_engine import Recorded, recording_engine, texts_of
from tests.fakes.shard_memory import FolderMemory

WINDOW = 1200
PROMPT = {"template": "tuned_engine.v1", "max_alt_chars": 8000}
LONG = "a harbour at dusk " * 100


def count(text: str) -> int:
    return len(text.encode())


@pytest.fixture
def engine() -> Iterator[Recorded]:
    with recording_engine(WINDOW, count) as recorded:
        yield recorded


def stage(model: Path, url: str | None, **settings: Any) -> CaptionStage:
    given = {"model": str(model), "max_model_len": WINDOW} | ({"base_url": url} if url else {})
    quick = {"concurrency": 1, "retries": 0, "max_tokens": 50, "prompt": PROMPT}
    values = quick | {"budget": {"image_tokens": 0, "reserve": 8}} | settings
    return CaptionStage(CaptionSection.model_validate(values | {"engine": given}), PRIORS)


def test_a_row_that_is_longer_than_the_window_is_cut_and_captioned(tmp_path: Path, engine: Recorded) -> None:
    byte_tokenizer(tmp_path / "model")
    captioning = stage(tmp_path / "model", engine.base_url)
    captioning.open()
    output = captioning.process(perceived(tmp_path, ["a short one", LONG], CountedImages()))
    assert set(account(output, 2).values()) == {engine.answer}
    asked = [texts_of(body) for body in engine.requests if body["max_tokens"] == 50]
    assert [system for system, _ in asked] == [Prompt(captioning.config.prompt).render(None, Priors()).system] * 2
    [long] = [user for _, user in asked if "harbour" in user]
    assert "LINE 1" in long
    assert "thing: [0.100" in long
    assert WINDOW - 60 - 20 <= sum(map(count, asked[0 if "harbour" in asked[0][1] else 1])) + 50 <= WINDOW
    metrics = output.metrics
    assert (metrics["prompts_cut"], metrics["cut_boxes"], metrics["cut_lines"]) == (1, 0, 0)
    [shown] = [line for line in long.splitlines() if "harbour" in line]
    assert metrics["cut_chars"] == len(LONG.strip()) - len(shown)
    # Without a budget the engine would have refused it.
    whole = Prompt(captioning.config.prompt).render(LONG, Priors())
    assert count(whole.system) + count(whole.user) + 50 > WINDOW


def test_a_repair_makes_room_for_the_turns_before_it(tmp_path: Path, engine: Recorded) -> None:
    byte_tokenizer(tmp_path / "model")
    captioning = stage(tmp_path / "model", engine.base_url, repair_on=["too_short"])
    captioning.open()
    output = captioning.process(perceived(tmp_path, [LONG], CountedImages()))
    assert len(account(output, 1)) == 1
    first, second = [body for body in engine.requests if body["max_tokens"] == 50]
    assert [message["role"] for message in second["messages"]] == ["system", "user", "assistant", "user"]
    assert texts_of(second)[0] == texts_of(first)[0]
    assert count(texts_of(second)[1]) < count(texts_of(first)[1])
    assert output.metrics["repairs_asked"] == 1
    [tokens] = output.rows.column("completion_tokens").to_pylist()
    assert tokens == 14  # both were answered


def test_answers_to_the_findings_are_drawn_until_one_has_none(tmp_path: Path, engine: Recorded) -> None:
    """The first as captions are, the others sampled, each with a seed of its own; all of them are remembered."""
    best = "A long enough caption, at last."

    def answer(body: dict[str, Any]) -> str:
        again = len(body["messages"]) > 2
        return best if again and body.get("seed") == 2 else "Too short."

    engine.answer = answer
    byte_tokenizer(tmp_path / "model")
    checks = {"min_words": 5}
    settings = {"repair_on": ["too_short"], "repair_tries": 4, "repair_temperature": 0.7, "checks": checks}
    captioning = stage(tmp_path / "model", engine.base_url, **settings)
    captioning.open()
    memory = FolderMemory(tmp_path / "memory")
    output = captioning.process(replace(perceived(tmp_path, ["a"], CountedImages()), memory=memory))
    asked = [body for body in engine.requests if body["max_tokens"] == 50]
    assert [(body["temperature"], body.get("seed")) for body in asked] == [(0, None), (0, None), (0.7, 1), (0.7, 2)]
    assert asked[1]["messages"] == asked[2]["messages"] == asked[3]["messages"]
    assert account(output, 1)[0] == best
    assert output.rows.column("repaired").to_pylist() == [True]
    assert output.rows.column("completion_tokens").to_pylist() == [4 * 7]
    assert (output.metrics["repairs_asked"], output.metrics["answers_asked"]) == (1, 4)

    again = captioning.process(replace(perceived(tmp_path, ["a"], CountedImages()), memory=memory))
    assert again.rows.equals(output.rows)
    assert again.metrics["answers_taken_over"] == 4
    assert len([body for body in engine.requests if body["max_tokens"] == 50]) == 4


def test_of_answers_that_all_have_findings_the_best_is_taken(tmp_path: Path, engine: Recorded) -> None:
    better = "It is too short, but it quotes LINE 0."

    def answer(body: dict[str, Any]) -> str:
        if len(body["messages"]) == 2:
            return "It is short."
        return {None: "", 1: better, 2: "It is also short."}[body.get("seed")]

    engine.answer = answer
    byte_tokenizer(tmp_path / "model")
    captioning = stage(tmp_path / "model", engine.base_url, repair_on=["too_short", "empty"], repair_tries=3)
    captioning.open()
    output = captioning.process(perceived(tmp_path, ["a"], CountedImages()))
    assert account(output, 1)[0] == better
    assert [one["kind"] for one in output.rows.column("findings").to_pylist()[0]] == ["too_short"]
    assert output.metrics["answers_asked"] == 4


def test_sampled_answers_are_not_for_a_deterministic_engine() -> None:
    engine = {"model": "org/name", "deterministic": True}
    with pytest.raises(ValueError, match="deterministic needs repair_tries 1"):
        CaptionSection.model_validate({"engine": engine, "repair_tries": 2})


def test_instructions_that_never_fit_stop_the_run_before_it_starts(tmp_path: Path, engine: Recorded) -> None:
    byte_tokenizer(tmp_path / "model")
    long = {"prompt": {"template": "meta_caption.v1"}}
    with pytest.raises(RequestError, match=r"meta_caption\.v1 takes .* caption\.engine\.max_model_len"):
        stage(tmp_path / "model", engine.base_url, **long).check()
    with pytest.raises(SetupError, match=r"meta_caption\.v1 takes"):
        stage(tmp_path / "model", engine.base_url, **long).open()
    # A tokenizer that only the Hub has is the worker's to fetch; whoever starts the run need not reach the Hub.
    stage(Path("densefusion-tests/no-such-model"), None, **long).check()


def test_the_tokenizer_is_part_of_what_decides(tmp_path: Path) -> None:
    byte_tokenizer(tmp_path / "model")
    url = "http://engine.test/v1"
    assert "tokenizer" not in stage(tmp_path / "model", None).models()
    assert stage(tmp_path / "model", url).models()["tokenizer"].startswith("file:")
    assert "tokenizer" not in stage(Path("org/name"), url).models()
    named = {"budget": {"tokenizer": {"model": "org/other", "revision": "abc"}}}
    assert stage(Path("org/name"), url, **named).models()["tokenizer"] == "org/other@abc"
