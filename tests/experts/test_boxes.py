import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from experts.boxes import best_per_label, box_rows, clipped, iou, suppress

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
    got = iou(np.array(a), np.array([b]))[0]
    assert abs(got - overlap_by_counting(a, b)) < 1e-9


@given(st.lists(DETECTION, max_size=25), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_suppression_keeps_a_maximal_set_without_conflicts(detections, limit):
    boxes, scores, labels = arrays(detections)
    kept = suppress(boxes, scores, labels, limit).tolist()
    assert [scores[i] for i in kept] == sorted((scores[i] for i in kept), reverse=True)

    def conflict(i, j):
        return labels[i] == labels[j] and iou(boxes[i], boxes[j : j + 1])[0] > limit

    assert not any(conflict(i, j) for i in kept for j in kept if i != j)
    for gone in set(range(len(detections))) - set(kept):
        assert any(conflict(i, gone) and scores[i] >= scores[gone] for i in kept)


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 5))
def test_best_per_label_takes_the_first_of_each(labels, count):
    kept = best_per_label(np.array(labels, dtype=np.int64), count).tolist()
    assert kept == [i for i, label in enumerate(labels) if labels[:i].count(label) < count]


def test_clipping_drops_what_lies_outside():
    boxes = np.array([[-0.5, 0.2, 0.5, 1.5], [1.1, 0.1, 1.3, 0.2], [0.1, 0.1, 0.1, 0.9]])
    inside, kept = clipped(boxes)
    assert inside[0].tolist() == [0.0, 0.2, 0.5, 1.0]
    assert kept.tolist() == [True, False, False]
    assert box_rows(["a"], np.array([0.5]), inside[:1]) == [
        {"label": "a", "score": 0.5, "x1": 0.0, "y1": 0.2, "x2": 0.5, "y2": 1.0}
    ]
