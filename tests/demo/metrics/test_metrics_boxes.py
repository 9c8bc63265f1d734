import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.metrics.boxes import Found, Truth, iou_matrix, mean_average_precision, precision_recall


def found(*rows: tuple[list[float], str, float]) -> Found:
    boxes = np.array([row[0] for row in rows], dtype=float).reshape(-1, 4)
    return Found(boxes, np.array([row[1] for row in rows], dtype="U9"), np.array([row[2] for row in rows], dtype=float))


def truth(*rows: tuple[list[float], str], ignored: tuple[int, ...] = ()) -> Truth:
    boxes = np.array([row[0] for row in rows], dtype=float).reshape(-1, 4)
    hidden = np.isin(np.arange(len(rows)), ignored)
    return Truth(boxes, np.array([row[1] for row in rows], dtype="U9"), hidden)


A, B, C, FAR = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10], [80.0, 80, 90, 90]


def test_iou_of_halves_and_of_boxes_without_area():
    assert iou_matrix(np.array([A, [5.0, 0, 15, 10], [3.0, 3, 3, 3]]), np.array([A])).ravel() == pytest.approx(
        [1, 1 / 3, 0]
    )


def test_average_precision_of_a_curve_worked_out_by_hand():
    # Ranked: right (precision 1, recall 1/3), wrong, right (2/3, 2/3); the third car is never found.
    # Recalls 0..0.33 read 1 (34 points), 0.34..0.66 read 2/3 (33 points), the other 34 read 0.
    looked = [found((A, "car", 0.9), (FAR, "car", 0.8)), found((B, "car", 0.7))]
    there = [truth((A, "car")), truth((B, "car"), (C, "car"))]
    result = mean_average_precision(looked, there)
    assert result.classes == {"car": pytest.approx((34 + 33 * 2 / 3) / 101)}
    assert precision_recall(looked, there, threshold=0.75) == pytest.approx((1 / 2, 1 / 3))
    assert precision_recall(looked, there, threshold=0.95) == (1.0, 0.0)


def test_the_mean_is_over_classes_that_are_there_and_a_label_must_fit():
    looked = [found((A, "car", 0.9), (B, "mug", 0.8), (C, "tree", 0.7))]
    result = mean_average_precision(looked, [truth((A, "car"), (B, "cone"))])
    assert result.classes == {"car": 1.0, "cone": 0.0}
    assert result.mean == 0.5


def test_a_second_box_on_one_object_is_wrong_and_the_best_score_comes_first():
    there = [truth((A, "car"), (B, "car"))]
    twice = [found((A, "car", 0.9), ([0.0, 0, 10, 11], "car", 0.8), (B, "car", 0.7))]
    assert mean_average_precision(twice, there).mean == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_counts_from_the_stated_iou_on():
    there = [truth((A, "car"))]
    half = [found(([0.0, 0, 10, 5], "car", 0.9))]
    assert mean_average_precision(half, there, iou=0.5).mean == 1.0
    assert mean_average_precision(half, there, iou=0.51).mean == 0.0


def test_boxes_on_ignored_objects_are_neither_right_nor_wrong():
    there = [truth((A, "car"), (B, "car"), ignored=(1,))]
    on_both = [found((B, "car", 0.9), (A, "car", 0.8))]
    assert mean_average_precision(on_both, there).mean == 1.0
    assert precision_recall(on_both, there) == (1.0, 1.0)
    # An object that counts is taken before an ignored one that fits better.
    close = [truth(([0.0, 0, 10, 8], "car"), (A, "car"), ignored=(1,))]
    assert mean_average_precision([found((A, "car", 0.9))], close).mean == 1.0
    with pytest.raises(ValueError, match="not ignored"):
        mean_average_precision(on_both, [truth((A, "car"), ignored=(0,))])


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="2 images"):
        mean_average_precision([found(), found()], [truth((A, "car"))])
    with pytest.raises(ValueError, match="fit together"):
        Found(np.zeros((2, 4)), np.zeros(3), np.zeros(2))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_perfect_boxes_give_one_and_no_order_matters(seed: int, images: int):
    rng = np.random.default_rng(seed)
    there, perfect, noisy = [], [], []
    for _ in range(images):
        n = int(rng.integers(1, 6))
        corner = rng.random((n, 2))
        boxes = np.concatenate([corner, corner + 0.05 + rng.random((n, 2))], axis=1)
        labels = rng.integers(0, 3, n)
        there.append(Truth(boxes, labels, rng.random(n) < 0.2))
        perfect.append(Found(boxes, labels, rng.random(n)))
        noisy.append(Found(boxes + rng.normal(0, 0.1, boxes.shape), rng.permutation(labels), rng.random(n)))
    if all(t.ignored.all() for t in there):
        return
    assert mean_average_precision(perfect, there).mean == 1.0
    before = mean_average_precision(noisy, there)
    assert 0 <= before.mean <= 1
    moved = rng.permutation(images)
    within = [rng.permutation(len(f.labels)) for f in noisy]
    shuffled = [Found(f.boxes[p], f.labels[p], f.scores[p]) for f, p in zip(noisy, within, strict=True)]
    assert mean_average_precision([shuffled[i] for i in moved], [there[i] for i in moved]) == before
