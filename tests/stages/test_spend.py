"""What captions cost: prices, the ledger's files, and a run that stops at its budget and loses nothing it paid for."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fusion.engine import Answer
from schemas.errors import SetupError
from stages import spend as spend_module
from stages.base import ShardOutput
from stages.caption import CaptionStage
from stages.caption_section import CaptionSection
from stages.spend import SpendLedger, SpendSection, ledger_lines
from tests.fakes import chat_engine
from tests.fakes.perceived import PRIORS, CountedImages, account, perceived
from tests.fakes.shard_memory import FolderMemory

PRICES = {"input_per_million": 2.0, "cached_per_million": 0.5, "output_per_million": 10.0}
ANSWER = Answer("text", "stop", prompt_tokens=7, cached_tokens=5, completion_tokens=3)
COST = (2 * 2.0 + 5 * 0.5 + 3 * 10.0) / 1e6
"""Of such an answer; all of the engine's here take as many tokens."""


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other workers spent is looked up whenever it is asked for."""
    monkeypatch.setattr(spend_module, "_REFRESH_S", -1.0)


@pytest.fixture
def engine() -> Iterator[str]:
    with chat_engine.running() as url:
        yield url


def section(**settings: Any) -> SpendSection:
    return SpendSection.model_validate(PRICES | settings)


def stage_of(url: str, budget: float | None, **settings: Any) -> CaptionStage:
    """A fresh worker's stage; one question at a time."""
    given = {"engine": {"model": "org/name", "base_url": url}, "concurrency": 1, "retries": 0}
    spend = {"spend": PRICES | {"budget": budget, "currency": "EUR"}}
    stage = CaptionStage(CaptionSection.model_validate(given | spend | settings), PRIORS)
    stage.open()
    return stage


def caption(stage: CaptionStage, scratch: Path, alts: list[str | None], memory: FolderMemory) -> ShardOutput:
    scratch.mkdir(exist_ok=True)
    try:
        return stage.process(replace(perceived(scratch, alts, CountedImages()), memory=memory))
    finally:
        stage.close()


def questions(url: str) -> list[str]:
    """What the engine was asked about rows."""
    return [one["text"] for one in chat_engine.asked(url) if "What colour is it?" not in one["text"]]


def spent(memory: FolderMemory) -> list[dict[str, Any]]:
    return [line for path in memory.lasting().glob("*.jsonl") for line in ledger_lines(path)]


def test_prices_tell_cached_tokens_from_others() -> None:
    assert section().price(ANSWER) == pytest.approx(COST)
    plain = section(cached_per_million=None)
    assert plain.price(ANSWER) == pytest.approx((7 * 2.0 + 3 * 10.0) / 1e6)
    assert section(cached_per_million=0).price(ANSWER) == pytest.approx((2 * 2.0 + 3 * 10.0) / 1e6)


def test_prices_decide_nothing_about_a_caption() -> None:
    given: dict[str, Any] = {"engine": {"model": "org/name"}}
    without = CaptionSection.model_validate(given)
    assert CaptionSection.model_validate(given | {"spend": PRICES | {"budget": 3}}).decides() == without.decides()


@pytest.mark.parametrize(
    "wrong", [{"budget": 0}, {"input_per_million": -1}, {"price": 1}, {"output_per_million": None}]
)
def test_prices_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section(**wrong)


def test_every_answer_is_a_line_and_what_never_came_is_none(tmp_path: Path) -> None:
    ledger = SpendLedger(section(currency="EUR"), tmp_path, "org/name")
    assert all(ledger.may_ask() for _ in range(3))
    ledger.settle("00001", "a" * 32, ANSWER)
    ledger.settle("00001", "b" * 32, None)
    ledger.settle("00002", "c" * 32, ANSWER)
    [file] = tmp_path.iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["shard"], line["uid"]) for line in lines] == [("00001", "a" * 32), ("00002", "c" * 32)]
    first = {name: value for name, value in lines[0].items() if name not in ("time", "cost")}
    tokens = {"prompt_tokens": 7, "cached_tokens": 5, "completion_tokens": 3}
    assert first == {"shard": "00001", "uid": "a" * 32, "model": "org/name", "currency": "EUR", **tokens}
    assert ledger.spent() == pytest.approx(2 * COST) == pytest.approx(sum(line["cost"] for line in lines))


def test_workers_count_each_other_and_whoever_was_there_before(tmp_path: Path) -> None:
    first, second = (SpendLedger(section(budget=3.5 * COST), tmp_path, "m") for _ in range(2))
    for ledger in (first, second, first):
        assert ledger.may_ask()
        ledger.settle("00000", "a" * 32, ANSWER)
    assert first.spent() == second.spent() == pytest.approx(3 * COST)
    # a new worker knows what an answer costs from the others, before its own first one
    third = SpendLedger(section(budget=3.5 * COST), tmp_path, "m")
    assert not any(ledger.may_ask() for ledger in (first, second, third))
    assert SpendLedger(section(budget=4.5 * COST), tmp_path, "m").may_ask()


def test_answers_that_are_waited_for_are_counted_too(tmp_path: Path) -> None:
    ledger = SpendLedger(section(budget=4.5 * COST), tmp_path, "m")
    assert ledger.may_ask()
    ledger.settle("00000", "a" * 32, ANSWER)
    assert [ledger.may_ask() for _ in range(5)] == [True, True, True, False, False]
    ledger.settle("00000", "b" * 32, None)  # one that cost nothing makes room
    assert [ledger.may_ask() for _ in range(2)] == [True, False]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    first = SpendLedger(section(), tmp_path, "m")
    for _ in range(3):
        first.may_ask()
        first.settle("00000", "a" * 32, ANSWER)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    for cut in (whole[:-20], whole + b'{"time": 1', whole + b"\x00\xff\xfe", whole + b"17\n"):
        file.write_bytes(cut)
        lines = 2 if cut == whole[:-20] else 3
        assert len(list(ledger_lines(file))) == lines
        assert SpendLedger(section(), tmp_path, "m").spent() == pytest.approx(lines * COST)


def test_lines_that_come_later_are_seen_and_none_is_counted_twice(tmp_path: Path) -> None:
    writer, reader = (SpendLedger(section(), tmp_path, "m") for _ in range(2))
    for number in range(1, 5):
        writer.may_ask()
        writer.settle("00000", "a" * 32, ANSWER)
        assert reader.spent() == reader.spent() == pytest.approx(number * COST)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    with file.open("ab") as f:  # a line that another worker has only begun to write, as a shared file system shows it
        f.write(whole[:30])
    assert reader.spent() == pytest.approx(4 * COST)
    with file.open("ab") as f:
        f.write(whole[30:])
    assert reader.spent() == pytest.approx(8 * COST)


def test_without_a_budget_everything_is_asked_and_counted(tmp_path: Path, engine: str) -> None:
    memory = FolderMemory(tmp_path / "memory")
    output = caption(stage_of(engine, None), tmp_path / "scratch", ["a", "do:400", "b"], memory)
    assert account(output, 3)[1] == "[engine_error]"
    lines = spent(memory)
    assert sorted(line["uid"] for line in lines) == sorted(output.rows.column("uid").to_pylist())
    assert {(line["shard"], line["model"], line["currency"]) for line in lines} == {("00000", "org/name", "EUR")}
    assert sum(line["cost"] for line in lines) == pytest.approx(2 * COST)


def test_a_run_stops_at_its_budget_and_goes_on_from_there_when_it_is_raised(tmp_path: Path, engine: str) -> None:
    memory = FolderMemory(tmp_path / "memory")
    alts: list[str | None] = [f"alt {i}" for i in range(6)]
    with pytest.raises(SetupError, match=r"caption\.spend\.budget.*raise the budget") as stopped:
        caption(stage_of(engine, 3.5 * COST), tmp_path / "first", alts, memory)
    assert "EUR" in str(stopped.value)
    assert f"{3 * COST:.4g}" in str(stopped.value)
    assert len(questions(engine)) == len(spent(memory)) == 3

    with pytest.raises(SetupError, match=r"caption\.spend\.budget"):  # again, and nothing more is asked
        caption(stage_of(engine, 3.5 * COST), tmp_path / "second", alts, memory)
    assert len(questions(engine)) == 3

    output = caption(stage_of(engine, 100 * COST), tmp_path / "third", alts, memory)
    assert all("LINE" in text for text in account(output, 6).values())
    asked = questions(engine)
    assert len(asked) == len(set(asked)) == 6  # those that were paid for were not asked again
    assert len(spent(memory)) == 6
    assert output.metrics["answers_taken_over"] == output.metrics["answers_asked"] == 3


def test_a_repair_that_is_not_paid_for_keeps_the_answer_before_it(tmp_path: Path, engine: str) -> None:
    memory = FolderMemory(tmp_path / "memory")
    repairs: dict[str, Any] = {"repair_on": ["empty"]}
    with pytest.raises(SetupError, match=r"caption\.spend\.budget"):
        caption(stage_of(engine, 1.5 * COST, **repairs), tmp_path / "first", ["do:empty"], memory)
    assert len(questions(engine)) == 1
    output = caption(stage_of(engine, 10 * COST, **repairs), tmp_path / "second", ["do:empty"], memory)
    assert len(questions(engine)) == 2
    assert output.rows.column("repaired").to_pylist() == [True]
    assert len(spent(memory)) == 2


def test_another_shard_meets_the_same_budget(tmp_path: Path, engine: str) -> None:
    stage = stage_of(engine, 2.5 * COST)
    first = FolderMemory(tmp_path)
    caption(stage, tmp_path / "first", ["a", "b"], first)

    class Second(FolderMemory):
        """Another shard's, of the same run."""

        def kept(self) -> Path:
            return self._made("kept of another")

    with pytest.raises(SetupError, match=r"caption\.spend\.budget"):
        caption(stage, tmp_path / "second", ["c"], Second(tmp_path))
    assert len(questions(engine)) == 2
