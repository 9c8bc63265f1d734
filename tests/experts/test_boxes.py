import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from experts.boxes import (
    best_of_each,
    best_per_label,
    boxes_of,
    clipped,
    corners,
    iou,
    measured_rows,
    scores_of,
    suppress,
)
from schemas.tables import BOXES_PRIOR

SPAN = st.tuples(st.integers(0, 90), st.integers(1, 30)).map(lambda s: (s[0] / 100, (s[0] + s[1]) / 100))
BOX = st.tuples(SPAN, SPAN).map(lambda b: [b[0][0], b[1][0], b[0][1], b[1][1]])
DETECTION = st.tuples(BOX, st.integers(0, 20).map(lambda s: s / 20), st.integers(0, 2))


def arrays(detections):
    boxes = np.array([d[0] for d in detections], dtype=np.float64).reshape(-1, 4)
    return boxes, np.array([d[1] for d in detections]), np.array([d[2] for d in detections], dtype=np.int64)


def overlap_by_counting(a, b):
    """IoU of two boxes whose corners are hundredths, by counting cells of a grid."""
    cells = []
    for x1, y1, x2, y2 in (a, b):
        grid = np.zeros((130, 130), bool)
        grid[round(y1 * 100) : round(y2 * 100), round(x1 * 100) : round(x2 * 100)] = True
        cells.append(grid)
    return (cells[0] & cells[1]).sum() / (cells[0] | cells[1]).sum()


@given(BOX, BOX)
def test_iou_is_the_share_of_common_area(a, b):
    got = iou(np.array([a]), np.array([b]))[0]
    assert abs(got - overlap_by_counting(a, b)) < 1e-9


@given(st.lists(DETECTION, max_size=25), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_suppression_keeps_a_maximal_set_without_conflicts(detections, limit):
    boxes, scores, labels = arrays(detections)
    kept = suppress(boxes, scores, labels, limit).tolist()
    assert [scores[i] for i in kept] == sorted((scores[i] for i in kept), reverse=True)

    def conflict(i, j):
        return labels[i] == labels[j] and iou(boxes[i : i + 1], boxes[j : j + 1])[0] > limit

    assert not any(conflict(i, j) for i in kept for j in kept if i != j)
    for gone in set(range(len(detections))) - set(kept):
        assert any(conflict(i, gone) and scores[i] >= scores[gone] for i in kept)


def plain_nms(boxes, scores, labels, limit):
    """As torchvision describes batched_nms, whose compiled operators a CPU-only torch cannot load; its IoU is real."""
    over = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy() > limit
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if not any(labels[i] == labels[j] and over[i, j] for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_suppression_keeps_what_plain_nms_keeps(seed):
    rng = np.random.default_rng(seed)
    low = rng.random((300, 2)) * 0.7
    boxes = np.concatenate([low, low + 0.02 + rng.random((300, 2)) * 0.3], axis=1)
    scores, labels = rng.random(300), rng.integers(0, 8, 300)
    kept = plain_nms(boxes, scores, labels, 0.2)
    assert 50 < len(kept) < 250
    assert suppress(boxes, scores, labels, 0.2).tolist() == kept


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 5)), max_size=30))
def test_the_best_of_each_anchor_is_the_first_of_its_highest(rows):
    anchors, scores, places = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    chosen = best_of_each(anchors, scores, places)
    for anchor in set(anchors.tolist()):
        (one,) = np.flatnonzero(chosen & (anchors == anchor))
        members = [row for row in rows if row[0] == anchor]
        assert rows[one] == min(members, key=lambda row: (-row[1], row[2]))


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_best_per_label_takes_the_first_of_each(labels, count):
    kept = best_per_label(np.array(labels, dtype=np.int64), count).tolist()
    assert kept == [i for i, label in enumerate(labels) if labels[:i].count(label) < count]


def test_clipping_drops_what_lies_outside():
    boxes = np.array([[-0.5, 0.2, 0.5, 1.5], [1.1, 0.1, 1.3, 0.2], [0.1, 0.1, 0.1, 0.9]])
    inside, kept = clipped(boxes)
    assert inside[0].tolist() == [0.0, 0.2, 0.5, 1.0]
    assert kept.tolist() == [True, False, False]


def test_rows_are_cut_to_the_image_best_first_and_of_the_tables_precision():
    boxes = np.array([[-1, 0, 0.1, 0.1], [2, 0, 3, 1], [0.2, 0.2, 0.2 + 1e-12, 1], [0, 0, 1, 1], [0, 0, 1 / 3, 1]])
    rows = measured_rows(
        ["a", "b"], np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.9, 0.9, 0.1, 0.3]), boxes, np.arange(5), 9
    )
    assert [(row["label"], row["anchor"]) for row in rows] == [("b", 4), ("a", 0), ("b", 3)]
    assert rows[1] == {"label": "a", "score": float(np.float32(0.1)), "x1": 0.0, "y1": 0.0, "anchor": 0} | {
        name: float(np.float32(0.1)) for name in ("x2", "y2")
    }
    table = pa.Table.from_pylist([{"uid": "0", "boxes": rows, "error": None}], schema=BOXES_PRIOR)
    assert table.to_pylist()[0]["boxes"] == rows
    assert boxes_of(rows).tolist() == [[row[name] for name in ("x1", "y1", "x2", "y2")] for row in rows]
    assert scores_of(rows).tolist() == [row["score"] for row in rows]
    few = measured_rows(["a", "b"], np.array([0, 1]), np.array([0.1, 0.3]), boxes[[0, 4]], np.array([7, 8]), 1)
    assert [row["anchor"] for row in few] == [8]
    assert measured_rows([], *(np.zeros(0, int),) * 2, np.zeros((0, 4)), np.zeros(0, int), 5) == []
    assert boxes_of([]).shape == (0, 4) and suppress(boxes_of([]), scores_of([]), scores_of([]), 0.5).tolist() == []


def test_corners_of_centred_boxes():
    assert corners(np.array([[0.5, 0.25, 0.5, 0.25]])).tolist() == [[0.25, 0.125, 0.75, 0.375]]
