"""What the demo's stages make of fresh scenes: no stage may become worse unnoticed.

The floors lie below the worst of several sets of scenes, never of the one measured here; `python -m benchmarks.world`
has the figures themselves, on more scenes.
"""

import pytest

from benchmarks.world.__main__ import APART
from benchmarks.world.measure import demo_config, measure
from demo.split import seeds

SCENES, SEED = 80, 601
"""k-means needs ten scenes for each of its eight clusters."""
COPIES = ("reencoded", "watermarked", "cropped")
FLOORS = {
    "purity": 0.97,
    "copies.reencoded.found": 0.97,
    "copies.watermarked.found": 0.97,
    "copies.cropped.found": 0.90,
    "tags.f1": 0.97,
    "closed_set.map50": 0.94,
    "open_set.map50": 0.78,
    "open_set.held_out.ap50": 0.35,
    "depth.residual_correlation": 0.88,
    "depth.pair_order": 0.94,
    "signs.clean": 0.92,
    "florence.region_named_f1": 0.85,
    "florence.caption_named_f1": 0.86,
    "florence.caption_placed_f1": 0.69,
    "florence.caption_setting": 0.95,
}
"""Below the worst of four sets of 80 validation scenes: 1.0, 1.0, 1.0, 0.95, 0.992, 0.977, 0.833, 0.597, 0.910, 0.957,
0.971, 0.914, 0.930, 0.794, 1.0 in this order."""
MOST_HIT = 0.025


@pytest.fixture(scope="module")
def figures():
    with demo_config() as config:
        (measured,) = measure(config, [seeds("test", SCENES, SEED * APART)], COPIES)
    return measured.figures


@pytest.mark.parametrize("name", FLOORS)
def test_no_stage_falls_below_its_floor(figures, name):
    assert figures[name] >= FLOORS[name]


def test_distinct_scenes_are_left_alone(figures):
    assert figures["copies.hit"] <= MOST_HIT


def test_what_a_trivial_answer_gives_is_beaten(figures):
    for name, trivial in (
        ("purity", "purity.majority"),
        ("tags.f1", "tags.fixed.f1"),
        ("closed_set.map50", "boxes.mean.map50"),
        ("open_set.map50", "boxes.mean.map50"),
        ("depth.pair_order", "depth.mean_map.pair_order"),
        ("florence.region_f1", "florence.fixed.region_f1"),
        ("florence.caption_class_f1", "florence.fixed.caption_class_f1"),
    ):
        assert figures[name] > figures[trivial]
