"""Figures of captions and regions, on a scene of which every wrong answer's cost is known."""

import pytest

from demo.captions import brief_caption
from demo.metrics.boxes import box_truth
from demo.metrics.florence import (
    caption_figures,
    clauses,
    fixed_caption_figures,
    fixed_region_figures,
    region_figures,
)
from demo.truth import ObjectTruth, SceneTruth


def thing(category, colour, x1, foot):
    box = (x1, foot - 40, x1 + 40, foot)
    return ObjectTruth(category, colour, "medium", box, box, 0.0, 1.0)


SCENE = SceneTruth(
    0, "beach", 200, 100, 20, (thing("ball", "red", 5, 95), thing("ball", "red", 10, 90), thing("car", "blue", 150, 45))
)
RIGHT = brief_caption(SCENE)
BALL, CAR = "A red ball on the left in the foreground.", "A blue car on the right in the background."


def regions(scene, coloured=True):
    truth = box_truth(scene, coloured)
    edges = ("x1", "y1", "x2", "y2")
    return [
        {"label": str(label), "score": 1.0} | dict(zip(edges, box.tolist(), strict=True))
        for label, box in zip(truth.labels, truth.boxes, strict=True)
    ]


def test_a_brief_caption_says_the_setting_and_places_every_object():
    assert RIGHT.endswith(f" {BALL} {BALL} {CAR}")
    assert clauses(f"A red ball. {CAR}") == [("blue", "car", "on the right", "in the background")]


@pytest.mark.parametrize(
    ("said", "of_class", "named", "placed"),
    [
        (RIGHT, 1, 1, 1),
        (RIGHT.replace("red ball", "red mug", 1), 2 / 3, 2 / 3, 2 / 3),
        (RIGHT.replace("A blue", "A green"), 1, 2 / 3, 2 / 3),
        (RIGHT.replace("on the right", "in the centre"), 1, 1, 2 / 3),
        (RIGHT.replace(f" {BALL}", "", 1), 4 / 5, 4 / 5, 4 / 5),
        (f"{RIGHT} {BALL}", 6 / 7, 6 / 7, 6 / 7),
    ],
)
def test_captions_are_right_in_what_they_say_of_each_object(said, of_class, named, placed):
    figures = caption_figures([said], [SCENE])
    assert figures == pytest.approx(
        {"caption_class_f1": of_class, "caption_named_f1": named, "caption_placed_f1": placed, "caption_setting": 1}
    )


def test_another_setting_is_wrong():
    assert caption_figures([f"The image shows a kitchen. {CAR}"], [SCENE])["caption_setting"] == 0


def test_regions_need_class_and_place_and_then_the_colour():
    assert region_figures([regions(SCENE)], [SCENE]) == {"region_f1": 1, "region_named_f1": 1}
    pale = [row | {"label": row["label"].replace("red", "pink")} for row in regions(SCENE)]
    assert region_figures([pale], [SCENE]) == pytest.approx({"region_f1": 1, "region_named_f1": 1 / 3})
    moved = [row | {"x1": row["x1"] + 0.14} if "car" in row["label"] else row for row in regions(SCENE)]
    assert region_figures([moved], [SCENE])["region_f1"] == pytest.approx(2 / 3)
    assert region_figures([[]], [SCENE])["region_f1"] == 0


def test_what_is_said_without_looking_is_right_by_chance_only():
    other = SceneTruth(1, "forest", 200, 100, 20, (thing("ball", "red", 155, 95), thing("tree", "white", 80, 60)))
    fixed = fixed_caption_figures([SCENE, other])
    # One red ball in both, and a second one as well as the car and the tree in one of them each.
    assert fixed["caption_class_f1"] == fixed["caption_named_f1"] == pytest.approx(10 / 13)
    assert fixed["caption_setting"] == 0.5
    assert fixed_caption_figures([SCENE] * 3) == pytest.approx(dict.fromkeys(fixed, 1))
    # The mean ball lies where none is; the mean car and the mean tree lie on theirs, and in the other scene too.
    assert fixed_region_figures([SCENE, other])["region_f1"] == pytest.approx(2 * 2 / (6 + 5))
