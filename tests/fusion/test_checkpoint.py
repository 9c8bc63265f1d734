"""Whether a checkpoint's requests carry boxes: told by its own files, wherever they lie."""

import json
from pathlib import Path
from typing import Any

import pytest

from fusion.checkpoint import takes_boxes
from fusion.engine import EngineSection
from fusion.model.image_processing import FusionImageProcessor


def write(folder: Path, **processor: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def images(takes: bool) -> dict[str, Any]:
    return FusionImageProcessor(takes_boxes=takes).to_dict()


def test_a_folder_says_it_whoever_serves_it(tmp_path: Path) -> None:
    boxed = write(tmp_path / "boxed", processor_class="FusionProcessor", image_processor=images(True))
    plain = write(tmp_path / "plain", processor_class="FusionProcessor", image_processor=images(False))
    llava = write(tmp_path / "llava", processor_class="LlavaNextProcessor")
    (tmp_path / "bare").mkdir()
    for url in (None, "http://127.0.0.1:1/v1"):
        assert takes_boxes(EngineSection(model=str(boxed), base_url=url))
        for other in (plain, llava, tmp_path / "bare"):
            assert not takes_boxes(EngineSection(model=str(other), base_url=url))


def test_a_model_of_the_hub_says_it_once_it_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not takes_boxes(EngineSection(model="org/name"))
    kept = tmp_path / "models--org--name"
    write(kept / "snapshots" / ("a" * 40), processor_class="FusionProcessor", image_processor=images(True))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("a" * 40)
    assert takes_boxes(EngineSection(model="org/name"))
    assert takes_boxes(EngineSection(model="org/name", revision="a" * 40))
    assert not takes_boxes(EngineSection(model="org/name", revision="b" * 40))
    assert not takes_boxes(EngineSection(model="org/name", base_url="http://127.0.0.1:1/v1"))
