"""`densefusion cost` against what an engine was really asked."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import load_run, override_config, save_run
from pipeline.store import Store
from tests.fakes import captioned_run
from tests.fakes.recording_engine import Recorded, recording_engine

PRICES = "caption.spend={input_per_million: 1000, output_per_million: 2000, budget: 50, currency: EUR}"
SETTINGS = ["caption.engine.max_model_len=4096", "caption.max_tokens=100", "caption.budget={image_tokens: 0}", PRICES]


@dataclass(frozen=True)
class Run:
    folder: Path
    store: Store
    engine: Recorded

    @property
    def sent(self) -> list[dict[str, Any]]:
        """Requests about rows."""
        return [body for body in self.engine.requests if body["max_tokens"] == 100]

    def captions(self) -> int:
        return sum(record.rows_out for record in self.store.commits("caption").values())

    def cost(self) -> dict[str, Any]:
        done = CliRunner().invoke(app, ["cost", str(self.folder), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def said(self) -> str:
        done = CliRunner().invoke(app, ["cost", str(self.folder)], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        return " ".join(done.stdout.split())


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with recording_engine(4096, lambda text: len(text) // 4) as engine:
        given = {"model": "org/big", "base_url": engine.base_url, "deterministic": False}
        store = captioned_run.perceived_run(tmp_path / "run", given, SETTINGS)
        yield Run(tmp_path / "run", store, engine)


def set_(run: Run, *settings: str) -> None:
    location = str(run.folder)
    save_run(location, override_config(load_run(location), list(settings), location))


def test_the_sum_is_that_of_what_was_asked(run: Run) -> None:
    for shard in run.store.shards("select"):
        captioned_run.caption(run.store, run.folder, [shard])  # a worker each
    answer = run.cost()
    [model] = answer["models"]
    asked = len(run.sent)
    assert asked > 5
    assert model["answers"] == model["images"] == asked == run.captions() == answer["captions"]
    assert len(list((run.folder / "caption" / "lasting").iterdir())) == len(run.store.shards("select"))
    tables = [run.store.table("caption", shard) for shard in run.store.shards("caption")]
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
        assert model[name] == sum(sum(table.column(name).to_pylist()) for table in tables)
    cost = (model["prompt_tokens"] * 1000 + model["completion_tokens"] * 2000) / 1e6
    assert model["cost"] == pytest.approx(cost)
    assert model["per_thousand_images"] == pytest.approx(1000 * cost / asked)
    assert (model["model"], model["currency"]) == ("org/big", "EUR")
    assert answer["total"] == [
        {"currency": "EUR", "cost": model["cost"], "per_thousand_captions": pytest.approx(1000 * cost / asked)}
    ]
    assert answer["budget"] == {"currency": "EUR", "budget": 50, "left": pytest.approx(50 - cost)}
    said = run.said()
    assert (
        f"org/big {asked} {asked} {model['prompt_tokens']:,} 0 {model['completion_tokens']:,} {cost:,.2f} EUR" in said
    )
    assert f"left of the budget: {50 - cost:,.2f} EUR of 50.00 EUR" in said


def test_what_was_paid_stays_paid_when_captions_are_made_anew(run: Run) -> None:
    captioned_run.caption(run.store, run.folder, ["00000"])
    first, before = run.cost()["models"][0], run.captions()
    set_(run, "caption.max_tokens=90", "caption.engine.model=org/other")
    captioned_run.caption(run.store, run.folder, ["00000"])
    answer = run.cost()
    assert [one["model"] for one in answer["models"]] == ["org/big", "org/other"]
    assert answer["models"][0] == first
    assert answer["captions"] == run.captions() == before
    total = sum(one["cost"] for one in answer["models"])
    assert answer["total"][0]["per_thousand_captions"] == pytest.approx(1000 * total / before)


def test_where_nothing_was_paid_it_says_so(run: Run) -> None:
    assert run.cost() == {
        "run": str(run.folder),
        "captions": 0,
        "models": [],
        "total": [],
        "budget": {"currency": "EUR", "budget": 50, "left": 50},
    }
    assert "No answer of" in run.said()
    assert "left of the budget: 50.00 EUR of 50.00 EUR" in run.said()
    set_(run, "caption.spend=null")
    captioned_run.caption(run.store, run.folder, ["00000"])
    answer = run.cost()
    assert answer["captions"] > 0
    assert (answer["models"], answer["budget"]) == ([], None)
    assert "where caption.spend has prices" in run.said()


def test_the_page_says_how_fast_a_worker_was(run: Run) -> None:
    """`docs/captioning.md` has the command; it reads what the commits say."""
    for shard in run.store.shards("select"):
        captioned_run.caption(run.store, run.folder, [shard])
    page = (Path(__file__).parents[2] / "docs" / "captioning.md").read_text()
    found = re.search(r"```sh\n(python -c .*?per_second.*?)\n```", page, re.DOTALL)
    assert found
    command = found[1].replace("python", sys.executable, 1).replace("runs/big", str(run.folder))
    done = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True, timeout=60)
    seconds = sum(record.metrics["engine_seconds"] for record in run.store.commits("caption").values())
    shown = re.search(r"\d+\.\d+", done.stdout)
    assert shown, done.stdout
    assert float(shown.group()) == pytest.approx(run.captions() / seconds)
