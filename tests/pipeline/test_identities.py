"""A run is looked at by what it started with; only `run` and `explain` need the outside world."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import Config, load_config, save_run
from pipeline.graph import build_stages
from pipeline.identities import recorded_stages, save_identities
from pipeline.plan import plan
from pipeline.storage import LocalStorage
from pipeline.store import Store
from schemas.errors import RequestError
from stages.base import Stage
from tests.pipeline.stages_for_tests import work_on

MODELS = ("embed.model", "perceive.tags.model", "caption.engine.model")


def started(root: Path) -> tuple[Config, LocalStorage]:
    """A run as `run` leaves it behind once `ingest` is committed; metadata and models lie in root/outside."""
    outside, run = root / "outside", root / "run"
    for model in MODELS:
        (outside / model).mkdir(parents=True)
        (outside / model / "open_clip_config.json").write_text(model)
    (outside / "metadata.csv").write_text("url,width\nhttp://a.example/1.jpg,900\nhttp://a.example/2.jpg,9\n")
    places = [f"{model}={outside / model}" for model in MODELS]
    off = [f"perceive.{name}=null" for name in ("open_set", "closed_set", "ocr", "depth", "florence")]
    source = f"ingest.sources=[{outside / 'metadata.csv'}]"
    unfiltered = ["ingest.max_punsafe=null", "ingest.max_pwatermark=null"]
    config = load_config("single-node", [source, *unfiltered, *places, *off], str(run))
    storage, stages = LocalStorage(run), build_stages(config)
    save_identities(storage, stages)
    save_run(str(run), config)
    assert work_on(Store(storage), stages[0]).run("all") == "done"  # type: ignore[arg-type]
    return config, storage


def identities(stages: list[Stage]) -> dict[str, dict[str, str]]:
    return {stage.name: stage.identity for stage in stages}


def test_a_run_is_looked_at_when_its_metadata_and_models_are_gone(tmp_path: Path) -> None:
    config, storage = started(tmp_path)
    before = identities(build_stages(config))
    shutil.rmtree(tmp_path / "outside")
    assert identities(recorded_stages(config, storage)) == before
    for command in ("status", "ledger", "verify", "report", "gc"):
        done = CliRunner().invoke(app, [command, str(storage.root), "--json"])
        assert done.exit_code == 0, (command, done.exception)
        json.loads(done.stdout)
    status = json.loads(CliRunner().invoke(app, ["status", str(storage.root), "--json"]).stdout)
    assert status["stages"][0] | {"seconds": 0} == {
        "name": "ingest",
        "shards": 1,
        "committed": 1,
        "failed": 0,
        "rows_in": 2,
        "rows_out": 1,
        "dropped": {"stated_size": 1},
        "seconds": 0,
    }
    explained = CliRunner().invoke(app, ["explain", str(storage.root)])
    assert isinstance(explained.exception, RequestError)
    assert "metadata.csv" in str(explained.exception)


def test_another_model_in_the_same_place_is_seen_by_a_fresh_look_alone(tmp_path: Path) -> None:
    config, storage = started(tmp_path)
    (tmp_path / "outside" / "metadata.csv").write_text("url\nhttp://b.example/1.jpg\n")
    assert plan(storage, recorded_stages(config, storage))[0].pending == []
    assert plan(storage, build_stages(config))[0].because == ["ingest.source 0 metadata.csv"]


def test_another_model_is_recorded_when_the_run_starts_and_in_what_every_sample_states(tmp_path: Path) -> None:
    config, storage = started(tmp_path)
    changed = config.model_copy(update={"embed": config.embed.model_copy(update={"model": "org/other"})})
    save_identities(storage, build_stages(changed))
    found = identities(recorded_stages(config, storage))
    assert found["embed"] != identities(build_stages(config))["embed"]
    assert found["package"]["embed"] == found["embed"]["model"]


@pytest.mark.parametrize("gone", MODELS)
def test_a_run_does_not_start_without_its_models(tmp_path: Path, gone: str) -> None:
    config, storage = started(tmp_path)
    shutil.rmtree(tmp_path / "outside" / gone)
    with pytest.raises(RequestError, match="does not exist"):
        save_identities(storage, build_stages(config))
