"""The example of docs/examples/sharpness, installed as a package of its own beside ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experts import registry
from schemas.errors import RequestError

EXAMPLE = Path(__file__).parents[2] / "docs/examples/sharpness"

LOOK = """
import json, sys
import numpy as np
from PIL import Image, ImageFilter
from experts.registry import EXPERTS
from pipeline.config import load_config
from pipeline.fingerprint import changes, stage_identity
from pipeline.graph import build_stages

config = load_config(sys.argv[1], [], "/nowhere")
expert = EXPERTS["sharpness"](config.perceive.sharpness)
expert.open("cpu")
noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8))
rows = expert.measure([noise, noise.filter(ImageFilter.GaussianBlur(6))])
stages = {stage.name: stage for stage in build_stages(config)}
stricter = load_config(sys.argv[1], ["perceive.sharpness.blurred_below=61"], "/nowhere")
for stage in (*stages.values(), *(later := {s.name: s for s in build_stages(stricter)}).values()):
    stage.identity = {}
changed = {
    name: [c.name for c in changes(name, stage_identity(stage), stage_identity(later[name]))]
    for name, stage in stages.items()
}
print(json.dumps({
    "blurred": [expert.decide(row, {})["blurred"] for row in rows],
    "stages": list(stages),
    "changed": {name: fields for name, fields in changed.items() if fields},
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the example is installed, as `pip install .` in its folder would."""
    place = tmp_path_factory.mktemp("site")
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(place), str(EXAMPLE)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True)
    return {**os.environ, "PYTHONPATH": str(place)}


def test_it_is_found_configured_and_decided_later(installed: dict[str, str]) -> None:
    config = str(EXAMPLE / "config.yaml")
    done = subprocess.run(
        [sys.executable, "-c", LOOK, config], env=installed, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["blurred"] == [False, True]
    assert "perceive.sharpness" in answer["stages"]
    assert answer["changed"] == {
        "caption": ["perceive.sharpness.blurred_below"],
        "package": ["perceive.sharpness.blurred_below"],
    }


def test_without_the_package_its_section_is_an_unknown_setting(tmp_path: Path) -> None:
    words = ["run", str(EXAMPLE / "config.yaml"), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "perceive.sharpness" in done.stderr


class Point:
    """An installed entry point."""

    def __init__(self, name: str, loaded: object) -> None:
        self.name, self.value, self.dist, self._loaded = name, "module:Thing", None, loaded

    def load(self) -> object:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (Point("mine", ImportError("no module named scipy")), r"mine .*cannot be imported: ImportError: no module"),
        (Point("mine", dict), "must name a subclass of experts.base.Expert whose `name` is 'mine'"),
        (Point("mine", registry.EXPERTS["tags"]), "whose `name` is 'mine'"),
        (Point("tags", registry.EXPERTS["tags"]), "Two experts are called tags"),
    ],
)
def test_a_package_that_does_not_do_is_named(monkeypatch: pytest.MonkeyPatch, point: Point, words: str) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    with pytest.raises(RequestError, match=words):
        registry.find_experts()
