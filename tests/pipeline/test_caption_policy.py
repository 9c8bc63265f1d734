"""Measured once, decided later: a policy or a threshold that changes asks the engine nothing that it has answered."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.config import load_run, override_config, save_run
from pipeline.store import Store
from schemas.commit import CommitRecord
from tests.fakes import captioned_run
from tests.fakes.byte_tokenizer import byte_tokenizer
from tests.fakes.recording_engine import Recorded, recording_engine

FIRST, SECOND = "A street. A person stands in a wide", "A street. A person stands in it."
SHARDS = ["00000", "00001"]
SETTINGS = ["caption.max_tokens=100", "caption.retries=0", "caption.checks.min_words=1"]


@dataclass
class Run:
    """A captioned run; the engine's first answers break off, its second ones do not."""

    folder: Path
    store: Store
    engine: Recorded
    asked: int = 0

    def set(self, *overrides: str) -> None:
        save_run(str(self.folder), override_config(load_run(str(self.folder)), list(overrides), str(self.folder)))

    def caption(self, *overrides: str) -> list[dict[str, Any]]:
        """Requests that the engine gets when everything is captioned under these settings."""
        self.set(*overrides)
        before = len(self.engine.requests)
        captioned_run.caption(self.store, self.folder, SHARDS)
        return [body for body in self.engine.requests[before:] if body["max_tokens"] > 1]

    def records(self) -> list[CommitRecord]:
        return [record for shard in SHARDS if (record := self.store.commit("caption", shard)) is not None]

    def rows(self) -> list[dict[str, Any]]:
        return [row for shard in SHARDS for row in self.store.table("caption", shard).to_pylist()]

    def metric(self, name: str) -> float:
        return sum(record.metrics[name] for record in self.records())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    byte_tokenizer(tmp_path / "model")
    with recording_engine(100_000, lambda text: len(text.encode())) as engine:
        engine.answer = lambda body: SECOND if len(body["messages"]) > 2 else FIRST
        given = {"model": str(tmp_path / "model"), "base_url": engine.base_url, "deterministic": False}
        given["max_model_len"] = 100_000
        store = captioned_run.perceived_run(tmp_path / "run", given, SETTINGS)
        made = Run(tmp_path / "run", store, engine)
        made.asked = len(made.caption())
        yield made


def test_what_is_decided_later_asks_nothing(run: Run) -> None:
    before = run.rows()
    assert len(before) == run.asked > 6
    fingerprints = {record.fingerprint for record in run.records()}
    run.engine.requests.clear()
    assert run.caption("caption.reject_on=[truncated]") == []
    assert run.engine.requests == []  # not even the short question that an engine is met with
    assert run.rows() == []
    assert run.metric("answers_taken_over") == len(before)
    assert run.metric("answers_asked") == 0
    assert sum(record.dropped["caption_rejected"] for record in run.records()) == len(before)
    assert not fingerprints & {record.fingerprint for record in run.records()}
    assert run.caption("caption.reject_on=[too_long]", "caption.checks.max_words=400") == []
    assert run.rows() == before


def test_it_needs_no_engine_at_all(run: Run) -> None:
    before = run.rows()
    assert run.caption("caption.engine.base_url=http://127.0.0.1:9/v1", "caption.reject_on=[refusal]") == []
    assert run.rows() == before


def test_a_policy_that_repairs_asks_for_the_repairs_alone(run: Run) -> None:
    count = len(run.rows())
    repairs = run.caption("caption.repair_on=[truncated]")
    assert [len(body["messages"]) for body in repairs] == [4] * count
    assert {row["caption"] for row in run.rows()} == {SECOND}
    assert all(row["repaired"] for row in run.rows())
    assert run.caption("caption.repair_on=[]") == []
    assert {row["caption"] for row in run.rows()} == {FIRST}
    assert run.caption("caption.repair_on=[truncated]") == []
    assert {row["caption"] for row in run.rows()} == {SECOND}


def test_what_changes_the_request_is_asked_anew(run: Run) -> None:
    count = len(run.rows())
    assert len(run.caption("caption.temperature=0.5")) == count
    assert len(run.caption("caption.prompt.max_boxes=1")) == count
    assert run.caption("caption.concurrency=3", "caption.reject_on=[]") == []


def test_rows_that_moved_to_other_shards_bring_their_answers(run: Run) -> None:
    before_uids = {row["uid"] for row in run.rows()}
    run.set("select.shard_rows=4")
    shards = captioned_run.select_anew(run.store, run.folder)
    assert len(shards) > len(SHARDS)
    before = len(run.engine.requests)
    captioned_run.caption(run.store, run.folder, shards)
    asked = len(run.engine.requests) - before
    records = [record for shard in shards if (record := run.store.commit("caption", shard)) is not None]
    taken = sum(record.metrics["answers_taken_over"] for record in records)
    rows = {row["uid"] for shard in shards for row in run.store.table("caption", shard).to_pylist()}
    assert taken == len(rows & before_uids) > 6
    assert asked == len(rows - before_uids) + 1  # and the short question


def test_answers_are_whole_after_a_kill(run: Run) -> None:
    """What an attempt had written down when it was killed is not asked again, but for the answer under way."""
    kept = run.store.storage.kept("caption", SHARDS[0])
    assert list(kept.iterdir()) == []  # removed after each commit, made here
    path = run.store.storage.local(next(o.key for o in run.records()[0].objects if o.kind == "answers"))
    answers = pq.read_table(path).to_pylist()
    lines = [json.dumps(row) for row in answers]
    (kept / "killed.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:40], encoding="utf-8")
    run.store.withdraw("caption", SHARDS[0])
    asked = run.caption()
    assert len(asked) == len(answers) - 3
    assert run.metric("answers_taken_over") == 3
    assert not kept.exists()
