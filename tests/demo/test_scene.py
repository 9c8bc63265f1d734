"""The renderer against its own truth."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.backgrounds import SETTINGS
from demo.palette import OBJECT_COLOURS
from demo.scene import Scene, render, scene_size
from demo.shapes import CATEGORIES, SHAPES, SIGN
from demo.signs import CONDITIONS, Lettering, draw_sign
from demo.surface import Surface
from demo.truth import SceneTruth

seeds = st.integers(0, 10**9)


def _digest(scene: Scene) -> str:
    return hashlib.sha256(scene.image.tobytes() + scene.disparity.tobytes() + repr(scene.truth).encode()).hexdigest()


def test_same_seed_gives_same_bytes_in_another_process() -> None:
    program = (
        "import hashlib; from demo.scene import render; s = render(77);"
        "print(hashlib.sha256(s.image.tobytes() + s.disparity.tobytes() + repr(s.truth).encode()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == _digest(render(77))
    assert _digest(render(77)) != _digest(render(78))


@settings(max_examples=25)
@given(seeds)
def test_truth_fits_the_picture(seed: int) -> None:
    scene = render(seed)
    truth = scene.truth
    assert scene.image.mode == "RGB"
    assert scene.image.size == (truth.width, truth.height) == scene_size(seed)
    assert min(scene.image.size) >= 512
    assert truth.setting in SETTINGS
    distances = [o.distance for o in truth.objects]
    assert distances == sorted(distances)
    for item in truth.objects:
        x1, y1, x2, y2 = item.visible_box
        assert 0 <= x1 < x2 <= truth.width
        assert 0 <= y1 < y2 <= truth.height
        assert item.full_box[0] <= x1 and item.full_box[1] <= y1
        assert item.full_box[2] >= x2 and item.full_box[3] >= y2
        assert 0 <= item.occlusion <= 0.75  # the lower half of a cone's box
        assert item.category in CATEGORIES
        assert (item.category == SIGN) == bool(item.text) == (item.condition in CONDITIONS)
        assert item.colour in OBJECT_COLOURS
        if item.text is not None:
            assert item.occlusion == 0
    assert SceneTruth.from_json(truth.as_json()) == truth


@settings(max_examples=15)
@given(seeds)
def test_objects_are_as_near_as_the_ground_they_stand_on(seed: int) -> None:
    scene = render(seed)
    truth, disparity = scene.truth, scene.disparity
    assert disparity.dtype == np.float32
    assert disparity.shape == (truth.height, truth.width)
    assert disparity.min() >= 0
    seen = scene.owners
    assert seen.dtype == np.uint8
    for number, item in enumerate(truth.objects, 1):
        rows, columns = np.nonzero(seen == number)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == item.visible_box
        assert np.allclose(disparity[seen == number], 1 / item.distance, rtol=1e-3)
    free = np.ones(truth.width, bool)
    for item in truth.objects:
        free[item.visible_box[0] : item.visible_box[2]] = False
    for item in truth.objects:
        x1, y1, x2, y2 = item.visible_box
        assert np.isclose(disparity[y1:y2, x1:x2], 1 / item.distance, rtol=1e-3).any()
        turned = item.condition == "rotated"  # it stands on its box, whose corners are empty
        if free.any() and item.full_box[3] < truth.height and not turned:
            assert np.allclose(disparity[item.full_box[3] - 1, free], 1 / item.distance, rtol=0.08)


@pytest.mark.parametrize("category", sorted(SHAPES))
def test_every_shape_fills_its_box_in_its_colour(category: str) -> None:
    means = []
    for name in ("red", "blue"):
        surface = Surface(120, 140)
        SHAPES[category].draw(surface, OBJECT_COLOURS[name])
        picture = np.asarray(surface.finished())
        solid = picture[..., 3] >= 128
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        assert columns[0] <= 4 and columns[-1] >= 115
        assert rows[0] <= 4 and rows[-1] >= 135
        means.append(picture[solid][:, :3].mean(0))
    red, blue = means
    assert red[0] - red[2] > blue[0] - blue[2] + 40


def test_all_settings_classes_and_colours_occur() -> None:
    truths = [render(seed).truth for seed in range(48)]
    assert {t.setting for t in truths} == set(SETTINGS)
    assert {o.category for t in truths for o in t.objects} == set(CATEGORIES)
    assert {o.colour for t in truths for o in t.objects} == set(OBJECT_COLOURS)
    horizons = [t.horizon / t.height for t in truths]
    assert max(horizons) - min(horizons) > 0.35
    assert any(o.occlusion > 0.1 for t in truths for o in t.objects)


def test_faint_letters_are_faint_and_conditions_as_frequent_as_stated() -> None:
    def contrast(fading: float) -> float:
        surface = Surface(160, 120)
        draw_sign(surface, OBJECT_COLOURS["blue"], Lettering(("OPEN", "24"), fading=fading))
        return float(np.asarray(surface.finished().convert("L"), float)[10:70, 15:145].std())

    assert contrast(0.85) < 0.5 * contrast(0.0)
    conditions = [o.condition for seed in range(200) for o in render(seed, (256, 205)).truth.objects if o.condition]
    for condition, share in CONDITIONS.items():
        assert abs(conditions.count(condition) / len(conditions) - share) < 0.12
