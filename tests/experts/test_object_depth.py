import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from demo.scene import render
from demo.split import seeds
from experts import object_depth
from experts.object_depth import distinct, nearness, object_depths

EDGES = st.floats(0, 1)
MAPS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(-50, 50, width=32)
)


def row(anchor, box, label="cup"):
    x1, y1, x2, y2 = box
    return {"label": label, "score": 0.5, "x1": x1, "y1": y1, "x2": x2, "y2": y2, "anchor": anchor}


@pytest.fixture(scope="module")
def scenes():
    """Of 25 scenes: the true map, and of each object seen its box and the nearness of the median of its pixels."""
    found = []
    for scene in map(render, seeds("validation", 25)):
        height, width = scene.disparity.shape
        low, range_ = scene.disparity.min(), np.ptp(scene.disparity)
        masks = [scene.owners == i + 1 for i in range(len(scene.truth.objects))]
        seen = [(item, mask) for item, mask in zip(scene.truth.objects, masks, strict=True) if mask.sum() >= 20]
        boxes = np.array([item.visible_box for item, _ in seen]) / (width, height, width, height)
        true = np.array([(np.median(scene.disparity[mask]) - low) / range_ for _, mask in seen])
        found.append((scene.disparity, boxes, true))
    return found


def wrong(scenes):
    """How many boxes of how many are read more than 0.02 off."""
    errors = np.concatenate([np.abs(nearness(disparity, boxes) - true) for disparity, boxes, true in scenes])
    return int((errors > 0.02).sum()), len(errors)


@pytest.mark.parametrize("share", [0.6, object_depth.CENTRAL, 0.8])
def test_the_middle_of_a_box_is_as_near_as_the_object_in_it(scenes, monkeypatch, share):
    monkeypatch.setattr(object_depth, "CENTRAL", share)
    bad, count = wrong(scenes)
    assert bad == 0 and count > 60


def test_the_whole_box_is_not(scenes, monkeypatch):
    monkeypatch.setattr(object_depth, "CENTRAL", 1.0)
    assert wrong(scenes)[0] >= 2


def test_background_in_the_corners_does_not_count():
    y, x = np.mgrid[:101, :101] / 100 - 0.5
    # A diamond fills half of its box.
    disparity = np.where(np.abs(x) + np.abs(y) < 0.49, 3.0, 1.0)
    disparity[0, 0] = 5.0
    assert nearness(disparity, np.array([[0, 0, 1, 1]])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("box", "pixel"),
    [
        ((0.51, 0.26, 0.512, 0.262), (1, 2)),
        ((0.0, 0.0, 0.01, 0.01), (0, 0)),
        ((0.999, 0.999, 1.0, 1.0), (3, 3)),
        ((1.0, 0.0, 1.0, 0.0), (0, 3)),
        ((0.75, 0.5, 1.0, 0.75), (2, 3)),
    ],
)
def test_a_box_of_a_pixel_or_less_reads_the_pixel_that_it_is_in(box, pixel):
    disparity = np.arange(16.0).reshape(4, 4)
    assert nearness(disparity, np.array([box])) == pytest.approx(disparity[pixel] / 15)


def test_a_map_of_two_pixels_has_a_far_and_a_near_one():
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]])
    assert nearness(np.array([[7.0, 9.0]]), boxes).tolist() == [0, 1]


@given(MAPS, st.tuples(EDGES, EDGES, EDGES, EDGES), st.floats(0.5, 100), st.floats(-100, 100))
def test_nearness_is_a_fraction_of_the_maps_range_in_any_unit(disparity, box, scale, offset):
    if np.ptp(disparity) < 0.01:
        return
    (one,) = nearness(disparity, np.array([box]))
    assert 0 <= one <= 1
    (other,) = nearness(disparity * np.float64(scale) + offset, np.array([box]))
    assert other == pytest.approx(one, abs=1e-4)


def test_one_row_a_box_whatever_its_labels_and_whose_anchors_are_alike():
    left, right = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
    boxes = {"closed_set": [row(4, left), row(4, left, "mug")], "open_set": [row(4, right), row(0, left)]}
    assert list(distinct(boxes)) == [("closed_set", 4), ("open_set", 4), ("open_set", 0)]
    assert object_depths(np.array([[0.0, 2.0]]), boxes) == [
        {"expert": "closed_set", "anchor": 4, "nearness": 0},
        {"expert": "open_set", "anchor": 4, "nearness": 1},
        {"expert": "open_set", "anchor": 0, "nearness": 0},
    ]


def test_a_flat_map_says_nothing_of_what_is_near():
    assert object_depths(np.full((5, 5), 3.0), {"closed_set": [row(0, (0, 0, 1, 1))]}) == []
    assert object_depths(np.array([[0.0, 2.0]]), {"closed_set": []}) == []
