"""`densefusion prompt` against what an engine was really sent."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.storage import LocalStorage
from pipeline.store import Store
from schemas.errors import IncompleteRunError, RequestError
from tests.fakes import captioned_run
from tests.fakes.byte_tokenizer import byte_tokenizer
from tests.fakes.recording_engine import Recorded, recording_engine, texts_of

WINDOW = 700
SETTINGS = [
    f"caption.engine.max_model_len={WINDOW}",
    "caption.max_tokens=100",
    "caption.budget={image_tokens: 0, keep_lines: 2, keep_boxes: 4}",
]


@dataclass(frozen=True)
class Run:
    """A run whose first shard is captioned; the engine looked at boxes.

    Attributes:
        sent: the engine's requests, without its probe.
    """

    folder: Path
    store: Store
    engine: Recorded

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [body for body in self.engine.requests if body["max_tokens"] == 100]

    def uids(self, shard: str = "00000") -> list[str]:
        return self.store.table("select", shard).column("uid").to_pylist()

    def ask(self, *words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["prompt", str(self.folder), *words, "--json"])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder, model = tmp_path_factory.mktemp("runs") / "run", tmp_path_factory.mktemp("model")
    said = {"processor_class": "FusionProcessor", "image_processor": {"takes_boxes": True}}
    byte_tokenizer(model)
    (model / "processor_config.json").write_text(json.dumps(said))
    with recording_engine(WINDOW, lambda text: len(text.encode())) as engine:
        given = {"model": str(model), "base_url": engine.base_url, "deterministic": False}
        store = captioned_run.perceived_run(folder, given, SETTINGS)
        captioned_run.caption(store, folder, ["00000"])
        yield Run(folder, store, engine)


def test_it_shows_every_request_as_the_engine_had_it(run: Run) -> None:
    captions = run.store.table("caption", "00000").to_pylist()
    assert len(captions) == len(run.sent) == len(run.uids()) - 1
    cuts = []
    for row in captions:
        answer = run.ask("--uid", row["uid"])
        assert answer["sent"], answer["because"]
        [body] = [body for body in run.sent if texts_of(body) == (answer["system"], answer["user"])]
        assert body["mm_processor_kwargs"]["boxes"] == [answer["boxes_beside"]]
        url = body["messages"][1]["content"][0]["image_url"]["url"]
        data = base64.b64decode(url.split(",")[1])
        with Image.open(io.BytesIO(data)) as picture:
            size = {"format": picture.format.lower(), "width": picture.width, "height": picture.height}
        assert answer["image"] == {**size, "bytes": len(data)}
        assert answer["caption"] == row
        assert answer["repair"] is None
        tokens = answer["tokens"]
        assert tokens["counted"] == row["prompt_tokens"]
        assert tokens["counted"] + tokens["boxes"] <= tokens["budget"] == WINDOW - 100 - 64
        cuts.append(answer["cut"])
    assert {bool(cut["boxes"]) for cut in cuts} == {True, False}


def test_no_row_was_refused_for_its_length_and_the_stage_counts_what_was_cut(run: Run) -> None:
    record = run.store.commit("caption", "00000")
    assert record is not None
    assert record.dropped == {"expert_failed": 1}
    full = [uid for uid in run.uids()[1:] if int(uid, 16) % captioned_run.FULL == 0]
    assert full
    assert record.metrics["prompts_cut"] == len(full)
    cuts = [run.ask("--uid", uid)["cut"] for uid in full]
    assert record.metrics["cut_boxes"] == sum(cut["boxes"] for cut in cuts) > 0
    assert record.metrics["cut_lines"] == sum(cut["lines"] for cut in cuts) > 0
    assert record.metrics["prompts_too_long"] == 0


def test_a_row_that_is_not_captioned_yet_shows_what_would_be_sent(run: Run) -> None:
    answer = run.ask("--uid", run.uids("00001")[1])
    assert not answer["sent"]
    assert answer["because"] == ["not done yet"]
    assert answer["caption"] is None
    assert "thing 0: [0.100" in answer["user"]


def test_a_row_that_an_expert_failed_on_says_so_and_what_the_ledger_says(run: Run) -> None:
    answer = run.ask("--uid", run.uids()[0])
    assert not answer["sent"]
    assert answer["not_asked"] == "perceive.ocr: the model ran out of memory"
    assert answer["stopped"]["reason"] == "expert_failed"
    done = CliRunner().invoke(app, ["prompt", str(run.folder), "--uid", run.uids()[0]])
    assert "no: perceive.ocr: the model ran out of memory" in done.stdout
    assert "stopped at caption: expert_failed" in done.stdout


def test_another_setting_shows_another_prompt_and_says_that_it_was_not_this(run: Run) -> None:
    uid = run.uids()[1]
    before = run.ask("--uid", uid)
    answer = run.ask("--uid", uid, "--set", "caption.prompt.max_boxes=1")
    assert (len(answer["boxes"]), len(answer["boxes_beside"])) == (1, 1)
    assert not answer["sent"]
    assert any(why.startswith("caption.prompt.max_boxes") for why in answer["because"])
    assert answer["caption"] == before["caption"]


def test_an_edited_template_is_another_prompt(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "own.v1.jinja"
    own.write_text("{% block system %}S{% endblock %}{% block user %}U{% endblock %}{% block repair %}R{% endblock %}")
    answer = run.ask("--uid", run.uids()[1], "--set", f"caption.prompt.template={own}")
    assert (answer["system"], answer["user"]) == ("S", "U")
    assert answer["template"].startswith("own.v1@")
    assert any(why.startswith("caption.prompt:") for why in answer["because"])


def test_a_tokenizer_that_cannot_be_had_here_is_a_note(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = "caption.engine={model: densefusion-tests/no-such-model, max_model_len: 4096}"
    answer = run.ask("--uid", run.uids()[1], "--set", model)
    [note] = answer["notes"]
    assert note.startswith("Tokens are estimated")
    assert "densefusion-tests/no-such-model" in note
    assert (answer["tokens"]["counted_by"], answer["tokens"]["counted"]) == ("estimate", None)


def test_people_see_the_texts_the_sums_and_the_answer(run: Run) -> None:
    uid = run.uids()[1]
    answer = run.ask("--uid", uid)
    done = CliRunner().invoke(app, ["prompt", str(run.folder), "--uid", uid])
    assert done.exit_code == 0
    for words in (answer["system"], answer["user"], answer["template"], answer["caption"]["caption"]):
        assert words in done.stdout
    assert "sent    yes" in done.stdout
    assert "too_short" in done.stdout


def test_a_repair_shows_both_turns_as_the_engine_had_them(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        return "Short." if len(body["messages"]) == 2 else "Several words more than before."

    settings = [*SETTINGS, "caption.engine.max_model_len=4096", "caption.repair_on=[too_short]"]
    with recording_engine(4096, lambda text: len(text.encode())) as engine:
        engine.answer = answer
        model = tmp_path / "model"
        model.mkdir()
        byte_tokenizer(model)
        given = {"model": str(model), "base_url": engine.base_url, "deterministic": False}
        store = captioned_run.perceived_run(tmp_path / "run", given, settings)
        captioned_run.caption(store, tmp_path / "run", ["00000"])
        run = Run(tmp_path / "run", store, engine)
        asked = len(engine.requests)
        shown = run.ask("--uid", run.uids()[1])
        assert len(engine.requests) == asked
    repair = shown["repair"]
    [body] = [b for b in run.sent if len(b["messages"]) == 4 and texts_of(b)[1] == shown["user"]]
    assert [message["content"] for message in body["messages"][2:]] == [repair["first"], repair["asked"]]
    assert (repair["first"], repair["second"]) == ("Short.", "Several words more than before.")
    [short] = [one for one in repair["findings"] if one["kind"] == "too_short"]
    assert short["detail"] in repair["asked"]
    done = CliRunner().invoke(app, ["prompt", str(run.folder), "--uid", shown["uid"]])
    assert "--- user, again" in done.stdout
    assert repair["asked"] in done.stdout


def unique_start(run: Run, uid: str) -> str:
    every = [one for shard in run.store.shards("select") for one in run.uids(shard)]
    return next(uid[:n] for n in range(1, 33) if sum(one.startswith(uid[:n]) for one in every) == 1)


def test_the_first_digits_are_enough_where_they_are_no_others(run: Run) -> None:
    uid = run.uids()[1]
    assert run.ask("--uid", unique_start(run, uid).upper())["uid"] == uid
    with pytest.raises(RequestError, match="Give more digits"):
        run.ask("--uid", "0")


def test_an_unknown_uid_says_where_it_stopped_or_that_there_is_none(run: Run) -> None:
    ledger = run.store.ledger("select")
    stopped = next(row for table in ledger for row in table.to_pylist())
    with pytest.raises(RequestError, match=f"{stopped['uid']} stopped at select: {stopped['reason']}"):
        run.ask("--uid", stopped["uid"])
    with pytest.raises(RequestError, match="has no row whose uid begins with ffff"):
        run.ask("--uid", "ffff")
    with pytest.raises(RequestError, match="is no uid"):
        run.ask("--uid", "'; drop table ledger")


def test_what_is_not_there_yet_is_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(IncompleteRunError, match=r"perceive\.tags.* has not looked at the row"):
        run.ask("--uid", run.uids()[1], "--set", "perceive.tags={family: timm, model: org/name}")


def test_a_row_on_its_way_says_how_far_it_has_come(tmp_path: Path) -> None:
    before = captioned_run.pictured_run(tmp_path / "run", rows=12, shard_rows=12)
    with pytest.raises(IncompleteRunError, match="has come as far as `dedup`"):
        Run(tmp_path / "run", before.store, Recorded("")).ask("--uid", before.uids[0])


def test_what_is_no_run_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not a run directory"):
        Run(tmp_path, Store(LocalStorage(tmp_path)), Recorded("")).ask("--uid", "0")
