"""The caption stage with an engine that misbehaves; a real vLLM server is in test_caption_vllm.py."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fusion.engine.server import VLLMServer
from schemas.errors import RequestError, SetupError
from schemas.ledger import Reason
from stages.caption import CaptionStage
from stages.caption_section import CaptionSection
from tests.fakes import chat_engine
from tests.fakes.packaged import uid_of
from tests.fakes.perceived import PRIORS, CountedImages, account, kill_engine, opened, perceived
from tests.fakes.shard_memory import FolderMemory


def section(engine: dict[str, Any] | None = None, **settings: Any) -> CaptionSection:
    quick = {"concurrency": 2, "request_timeout_s": 60, "retries": 1}
    return CaptionSection.model_validate(quick | settings | {"engine": {"model": "org/name"} | (engine or {})})


def port_of(server: VLLMServer) -> str:
    return server.base_url.split(":")[2].removesuffix("/v1")


def given(url: str, **settings: Any) -> CaptionStage:
    """The stage with an engine that runs already."""
    stage = CaptionStage(section({"base_url": url}, **settings), PRIORS)
    stage.open()
    return stage


@pytest.fixture
def external() -> Iterator[str]:
    with chat_engine.running() as url:
        yield url


@pytest.fixture
def own_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage's own server is the misbehaving engine instead of vLLM; guardian and restarts are the real ones."""
    monkeypatch.setattr(VLLMServer, "command", lambda self: [sys.executable, chat_engine.__file__, port_of(self)])


def test_every_row_ends_once_whatever_the_engine_and_the_experts_do(tmp_path: Path, external: str) -> None:
    stage = given(external)
    images = CountedImages()
    images.broken = {5}
    alts = ["a", "do:400", "do:500", "do:empty", "do:garbage", "b", "c", "d", None, "e"]
    errors = {6: "the model ran out of memory", 7: "poison: every process that worked on this row died"}
    output = stage.process(perceived(tmp_path, alts, images, errors))
    became = account(output, len(alts))
    assert "a" in became[0]
    assert "LINE 0" in became[0]
    assert "thing: [0.100, 0.200, 0.500, 0.600]" in became[0]
    assert [became[i] for i in range(1, 8)] == [
        "[engine_error]",
        "[engine_error]",
        "[caption_rejected]",
        "[engine_error]",
        "[decode]",
        "[expert_failed]",
        "[poison]",
    ]
    assert "LINE 8" in became[8]
    details = {d.uid: d.detail for d in output.drops}
    assert "HTTP 400" in details[uid_of(1)]
    assert details[uid_of(6)] == "perceive.ocr: the model ran out of memory"
    assert output.metrics["completion_tokens"] == 3 * 4  # the rejected caption cost tokens too


def test_without_required_priors_a_failed_expert_only_leaves_its_block_out(tmp_path: Path, external: str) -> None:
    stage = given(external, require_priors=False)
    became = account(stage.process(perceived(tmp_path, ["a", "b"], CountedImages(), {1: "broken"})), 2)
    assert "LINE 0" in became[0]
    assert "LINE" not in became[1]
    assert "thing" in became[1]


def test_findings_repair_once_and_reject(tmp_path: Path, external: str) -> None:
    stage = given(external, repair_on=["empty"], reject_on=["empty", "truncated"])
    output = stage.process(perceived(tmp_path, ["fine", "do:empty"], CountedImages()))
    became = account(output, 2)
    assert "The description is empty." in became[1]  # the engine echoes the second turn
    assert output.rows.column("repaired").to_pylist() == [False, True]
    assert output.rows.column("completion_tokens").to_pylist() == [3, 6]
    assert output.metrics["repairs_asked"] == output.metrics["repaired"] == 1
    assert output.metrics["captions_checked"] == output.metrics["captions_kept"] == 2
    assert output.metrics["empty_first"] == 1 and "empty_last" not in output.metrics
    kinds = {f["kind"] for f in output.rows.column("findings").to_pylist()[0]}
    assert "coordinates" in kinds


def test_a_model_that_looks_at_boxes_gets_those_that_the_prompt_shows(tmp_path: Path, external: str) -> None:
    said = {"processor_class": "FusionProcessor", "image_processor": {"takes_boxes": True}}
    (tmp_path / "processor_config.json").write_text(json.dumps(said))
    shown = {"mm_processor_kwargs": {"boxes": [[[0.1, 0.2, 0.5, 0.6]]]}}
    for model, options in ((str(tmp_path), shown), ("org/name", {})):
        stage = CaptionStage(section({"base_url": external, "model": model}), PRIORS)
        stage.open()
        output = stage.process(perceived(tmp_path, ["do:options"], CountedImages()))
        assert json.loads(account(output, 1)[0]) == options


def test_a_row_that_kills_the_engine_is_poison_and_takes_nobody_along(tmp_path: Path, own_engine: None) -> None:
    with opened(section()) as stage:
        output = stage.process(perceived(tmp_path, ["a", "b", "do:die", "c", "d", "e"], CountedImages()))
        became = account(output, 6)
        assert became[2] == f"[{Reason.POISON}]"
        assert all("LINE" in became[i] for i in (0, 1, 3, 4, 5))
        assert output.metrics["engine_restarts"] == 4


def test_a_killed_engine_is_restarted_and_only_unanswered_rows_are_asked_again(
    tmp_path: Path, own_engine: None
) -> None:
    killed: list[int] = []

    def kill(row: int) -> None:
        if row == 4 and not killed:
            killed.append(row)
            kill_engine()

    images = CountedImages(kill)
    with opened(section()) as stage:
        output = stage.process(perceived(tmp_path, [f"alt {i}" for i in range(8)], images))
    assert all("LINE" in caption for caption in account(output, 8).values())
    assert output.metrics["engine_restarts"] == 1
    # Two rows are under way at a time: when the fifth is read, three of the first four have their answers.
    assert sum(images.reads[i] for i in range(4)) <= 4 + 1


def test_the_seconds_of_the_engine_are_those_in_which_it_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pilot's captions a second are multiplied by millions; a big model's start takes as long as the pilot."""
    start_s = 3
    slow = f"sleep {start_s}; exec {sys.executable} {chat_engine.__file__}"
    monkeypatch.setattr(VLLMServer, "command", lambda self: ["sh", "-c", f"{slow} {port_of(self)}"])
    stage = CaptionStage(section(), PRIORS)
    stage.open()
    began = time.monotonic()
    try:
        output = stage.process(perceived(tmp_path, ["a", "do:sleep=0.5"], CountedImages()))
    finally:
        stage.close()
    assert 0.5 <= output.metrics["engine_seconds"] <= time.monotonic() - began - start_s


def test_a_hung_engine_is_restarted_and_a_slow_row_is_not_its_fault(tmp_path: Path, own_engine: None) -> None:
    stopped: list[int] = []

    def stop(row: int) -> None:
        if row == 2 and not stopped:
            stopped.append(row)
            kill_engine(signal.SIGSTOP)

    config = section({"health_timeout_s": 1}, request_timeout_s=1, retries=0)
    with opened(config) as stage:
        output = stage.process(perceived(tmp_path, ["a", "b", "c", "do:hang"], CountedImages(stop)))
        assert output.metrics["engine_restarts"] == 1
        became = account(output, 4)
    assert all("LINE" in became[i] for i in range(3))
    assert became[3] == f"[{Reason.ENGINE_ERROR}]"


def test_a_hang_is_told_by_progress_long_before_the_requests_run_out_of_time(tmp_path: Path, own_engine: None) -> None:
    stopped: list[int] = []

    def stop(row: int) -> None:
        if row == 2 and not stopped:
            stopped.append(row)
            kill_engine(signal.SIGSTOP)

    config = section({"stall_timeout_s": 1}, request_timeout_s=3600, retries=0)
    with opened(config) as stage:
        output = stage.process(perceived(tmp_path, ["a", "b", "c", "d"], CountedImages(stop)))
    assert all("LINE" in caption for caption in account(output, 4).values())
    assert output.metrics["engine_restarts"] == 1


def test_an_engine_that_works_without_answering_is_not_hung(tmp_path: Path, own_engine: None) -> None:
    """Its own count moves on while the only answer takes longer than a stall may."""
    config = section({"stall_timeout_s": 1}, retries=0)
    with opened(config) as stage:
        output = stage.process(perceived(tmp_path, ["do:sleep=4"], CountedImages()))
    assert output.metrics["engine_restarts"] == 0
    assert len(account(output, 1)) == output.rows.num_rows == 1


def test_an_engine_that_keeps_dying_stops_the_run(tmp_path: Path, own_engine: None) -> None:
    limit = r"more than 1 times within one shard.*max_restarts"
    with (
        opened(section({"max_restarts": 1, "log_dir": str(tmp_path)})) as stage,
        pytest.raises(SetupError, match=limit),
    ):
        stage.process(perceived(tmp_path, ["do:die"], CountedImages()))


def test_a_given_engine_that_goes_away_stops_the_run_instead_of_dropping_rows(tmp_path: Path) -> None:
    with chat_engine.running() as url:
        stage = given(url)
    with pytest.raises(SetupError, match="does not answer a short question"):
        stage.process(perceived(tmp_path, ["a"], CountedImages()))
    with pytest.raises(SetupError, match="connection failed"):
        given(url).connect()


def test_a_host_that_refuses_for_the_pace_stops_the_run_and_what_was_answered_is_kept(
    tmp_path: Path, external: str
) -> None:
    """Rows that are dropped for it would never be asked about again."""
    memory = FolderMemory(tmp_path / "memory")
    shard = perceived(tmp_path, ["a", "do:429x3;after=600", "c"], CountedImages())
    shard.memory = memory
    stage = CaptionStage(section({"base_url": external, "patience_s": 10}, concurrency=1), PRIORS)
    stage.open()
    with pytest.raises(SetupError, match=r"asked so fast.*patience_s \(10\).*HTTP 429.*kept"):
        stage.process(shard)
    stage = CaptionStage(section({"base_url": external, "patience_s": 0.1}, concurrency=1), PRIORS)
    stage.open()
    for _ in range(2):
        with pytest.raises(SetupError, match="asked so fast"):
            stage.process(shard)
    output = stage.process(shard)
    assert output.rows.num_rows == 3
    assert output.metrics["answers_taken_over"] == 2


def test_a_key_that_is_not_there_is_one_paragraph(external: str) -> None:
    with pytest.raises(SetupError, match="NO_SUCH_KEY"):
        stage = CaptionStage(section({"base_url": external, "api_key_env": "NO_SUCH_KEY"}), PRIORS)
        stage.open()
        stage.connect()


def test_what_cannot_work_is_refused_before_anything_starts(tmp_path: Path) -> None:
    CaptionStage(section(), PRIORS).check()
    with pytest.raises(RequestError, match="tensor_parallel is 4"):
        CaptionStage(section({"tensor_parallel": 4}), PRIORS).check()
    with pytest.raises(RequestError, match=r"perceive\.tags"):
        CaptionStage(section(prompt={"tags": True}), PRIORS).check()
    with pytest.raises(RequestError, match="does not exist"):
        CaptionStage(section({"model": str(tmp_path / "none")}), PRIORS).check()
    with pytest.raises(ValidationError, match="temperature 0"):
        section({"deterministic": True}, temperature=0.5)


def test_models_name_the_weights_and_the_prompt() -> None:
    models = CaptionStage(section({"revision": "abc"}), PRIORS).models()
    assert models["engine"] == "org/name@abc"
    assert models["prompt"].startswith("caption_engine.v1@")
    assert CaptionStage(section(), PRIORS).also_reads == ("perceive.closed_set", "perceive.ocr")
