"""The pictures of docs/experts.md: what is drawn is what was measured, files stay small; and what the page quotes."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.experts import sheets
from demo.scene import scene_size
from experts.closed_set_detectors.file import records
from experts.depth import packed
from fusion.box_choice import BoxChoiceSection, choose_boxes
from stages.perceive import PerceiveSection

DOCS = Path(__file__).parents[2] / "docs"
EDGES = ("x1", "y1", "x2", "y2")


def box(label, score, corners, anchor=0):
    return {"label": label, "score": score, "anchor": anchor, **dict(zip(EDGES, corners, strict=True))}


@pytest.fixture(scope="module")
def seen():
    return sheets.scenes(2)


def said_of(scene):
    """Priors of experts that found one large and one small thing."""
    boxes = [box("car", 0.9, (0.1, 0.1, 0.9, 0.9)), box("mug", 0.4, (0.5, 0.5, 0.55, 0.55), 1)]
    near = [
        {"expert": "closed_set", "anchor": 0, "nearness": 0.9, "band": "near"},
        {"expert": "closed_set", "anchor": 1, "nearness": 0.1, "band": "far"},
    ]
    depth = packed(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)) | {"objects": near}
    rows = {
        "tags": {"tags": [{"tag": "car", "score": 0.9}]},
        "closed_set": {"boxes": boxes},
        "open_set": {"boxes": boxes[1:]},
        "depth": depth,
        "florence": {"caption": "The image shows a moon.", "lines": [], "regions": boxes, "phrases": []},
    }
    return {name: row | {"error": None} for name, row in rows.items()}


def test_scenes_are_the_first_that_fit(seen):
    assert [scene.truth.seed for scene in sheets.scenes(1)] == [seen[0].truth.seed]
    assert all(scene_size(scene.truth.seed) == sheets.LAID_SIZE and len(scene.truth.objects) >= 3 for scene in seen)


def test_every_sheet_is_drawn_and_small(seen, tmp_path):
    said = [said_of(scene) for scene in seen]
    drawn = {
        "boxes": sheets.boxes_sheet(seen, said),
        "depth": sheets.depth_sheet(seen, said),
        "florence": sheets.florence_sheet(seen, said),
        "choice": sheets.choice_sheet(seen, said),
        "photographs": sheets.photographs_sheet({"one": seen[0].image, "two": seen[1].image}, said),
    }
    for name, picture in drawn.items():
        sheets.saved(picture, tmp_path / f"{name}.jpg")
        assert (tmp_path / f"{name}.jpg").stat().st_size < sheets.MOST_BYTES
        assert np.asarray(picture).std() > 10


def test_laid_out_boxes_lie_in_their_own_picture():
    corners = (0.25, 0.5, 0.75, 1.0)
    rows = {name: {"boxes": [box("car", 0.9, corners)], "error": None} for name in ("closed_set", "open_set")}
    priors = sheets.laid_out([rows] * 6)
    assert len(priors.closed_set) == len(priors.open_set) == 6
    last = priors.open_set[-1]
    assert [last[edge] for edge in EDGES] == pytest.approx([2.25 / 3, 1.5 / 2, 2.75 / 3, 1])
    assert len(choose_boxes(priors, BoxChoiceSection(max_boxes=500))) == 6


def test_size_classes_are_those_of_the_choice():
    section = BoxChoiceSection()
    sides = {"small": 0.09, "medium": 0.2, "large": 0.5}
    assert [sheets.size_class(box("car", 1, (0, 0, side, side)), section) for side in sides.values()] == list(sides)


def test_text_is_read_and_numbered():
    picture = sheets.text_sheet()
    assert picture.width > 3 * sheets.WIDTH


def test_marks_lie_where_the_box_is():
    picture = sheets.marked(Image.new("RGB", (100, 50)), [(box("car", 1, (0.5, 0.5, 1, 1)), "", (255, 0, 0))])
    red = np.asarray(picture)[..., 0]
    assert red[30, 50] == red[25, 60] == red[49, 99] == 255 and not red[:24].any() and not red[30, 60]


def test_without_scikit_image_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(SystemExit) as ended:
        sheets.main(["--out", str(tmp_path)])
    assert ended.value.code == 2 and "scikit-image" in capsys.readouterr().err


@pytest.fixture(scope="module")
def page():
    return (DOCS / "experts.md").read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_page_shows_pictures_that_are_there(page):
    shown = re.findall(r"\]\(images/(.*?)\.jpg\)", page)
    assert len(shown) == 6 and all((DOCS / f"images/{name}.jpg").stat().st_size < sheets.MOST_BYTES for name in shown)


def test_the_page_quotes_the_example_as_it_is(page):
    quoted = next(block for block in blocks(page, "python") if "Sharpness" in block)
    source = (DOCS / "examples/sharpness/sharpness.py").read_text(encoding="utf-8").splitlines()
    assert all(line in source for line in quoted.splitlines())


def test_settings_on_the_page_are_settings(page, tmp_path):
    for block in blocks(page, "yaml"):
        PerceiveSection.model_validate(yaml.safe_load(block)["perceive"])
    (record,) = blocks(page, "json")
    (tmp_path / "boxes.json").write_text(record)
    ((key, rows, labels),) = records(tmp_path / "boxes.json")
    assert key == json.loads(record)[0]["id"] and len(rows) == len(labels) == 1
