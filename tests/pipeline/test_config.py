from pathlib import Path

import pytest

from pipeline.config import load_config, load_run, override_config, presets, save_run
from schemas.errors import RequestError

SOURCES = "ingest.sources=[meta.parquet]"


@pytest.mark.parametrize("name", ["demo", "single-node", "densefusion-1m", "meta-set"])
def test_every_preset_is_valid(name: str) -> None:
    assert name in presets()
    assert load_config(name, [SOURCES], "runs/x").name == name


def test_the_papers_figures_are_in_its_preset() -> None:
    config = load_config("densefusion-1m", [SOURCES], "runs/x")
    assert config.ingest.min_short_edge == config.download.min_short_edge == 448
    assert config.cluster.k == 50_000
    assert config.dedup.epsilon == 0.4
    assert config.select.per_cluster == 20
    assert config.caption.prompt.word_target == 192


def test_the_meta_set_is_drawn_at_random_and_asks_a_hosted_model_within_a_budget() -> None:
    meta, million = (load_config(name, [SOURCES], "runs/x") for name in ("meta-set", "densefusion-1m"))
    assert (meta.select.limit, meta.select.rank_by, meta.select.per_cluster) == (100_000, "random", None)
    assert meta.cluster.k == 1
    assert meta.perceive == million.perceive
    caption = meta.caption
    assert caption.engine.urls and caption.engine.api_key_env and caption.engine.requests_per_minute
    assert caption.prompt.template == "meta_caption.v1"
    assert caption.prompt.word_target == 192
    assert caption.spend is not None and caption.spend.budget is not None
    assert caption.resources.gpus == 0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("caption.max_token=3", "did you mean `max_tokens`"),
        ("captoin.max_tokens=3", "did you mean `caption`"),
        ("dedup.epsilon=7", "less than"),
        ("perceive.ocr.resources.gpu=1", "did you mean `gpus`"),
        ("select.per_cluster=many", "got 'many'"),
        ("download.allow_hosts=[http://images.test]", "'http://images.test' is not `host` or `host:port`"),
        ("cluster.levels=[8]", "`cluster`: levels ([8]) must rise"),
        ("no-equals-sign", "key.path=value"),
    ],
)
def test_a_typo_is_one_paragraph_that_names_key_and_cure(override: str, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_config("demo", [override], "runs/x")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_or_not_yaml_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"`ingest\.sources` is required"):
        load_config("single-node", [], "runs/x")
    with pytest.raises(RequestError, match="Did you mean the preset demo"):
        load_config("demmo", [], "runs/x")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [")
    with pytest.raises(RequestError, match="not valid YAML"):
        load_config(str(bad), [], "runs/x")


def test_a_file_extends_a_preset_and_set_wins(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: demo\nname: mine\nselect: {per_cluster: 3}\n")
    config = load_config(str(mine), ["select.per_cluster=4"], "runs/x")
    assert (config.name, config.select.per_cluster, config.select.shard_rows) == ("mine", 4, 24)


def test_run_yaml_gives_the_same_configuration_back(tmp_path: Path) -> None:
    config = load_config("demo", [], str(tmp_path))
    assert config.ingest.sources == [f"{tmp_path}/world/metadata.parquet"]
    save_run(str(tmp_path), config)
    assert load_run(str(tmp_path)) == config
    assert override_config(config, ["caption.max_tokens=9"], str(tmp_path)).caption.max_tokens == 9
    with pytest.raises(RequestError, match="not a run directory"):
        load_run(str(tmp_path / "nothing"))
