"""The detector's recipe: which prediction answers for which object, and a model that the stock classes load."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.shapes import CATEGORIES
from demo.train.assignment import Targets, losses, one_to_many, one_to_one, overlaps
from demo.train.pool import ScenePool
from demo.train.recipes import recipe
from demo.train.recipes.detector import SIDE, Detector, DetectorSection, _cells, _targets, detect
from experts.closed_set import ClosedSet, ClosedSetSection
from tests.demo.train.conftest import ScenesOf


def boxes(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor([list(rows)])


def targets(
    where: torch.Tensor, labels: list[int], present: list[bool] | None = None, ignored: list[bool] | None = None
) -> Targets:
    n = len(labels)
    return Targets(
        where,
        torch.tensor([labels]),
        torch.tensor([present or [True] * n]),
        torch.tensor([ignored or [False] * n]),
    )


def test_overlaps_of_boxes_that_touch_nest_and_lie_apart() -> None:
    a = boxes((0.5, 0.5, 0.2, 0.2), (0.5, 0.5, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2))
    b = boxes((0.5, 0.5, 0.2, 0.2), (0.5, 0.5, 0.1, 0.2), (0.6, 0.2, 0.2, 0.2))
    iou, giou = overlaps(a, b)
    torch.testing.assert_close(iou, torch.tensor([[1, 0.5, 0]]))
    # Apart: the hull is 0.6 x 0.2 = 0.12, the union 0.08.
    torch.testing.assert_close(giou, torch.tensor([[1, 0.5, -1 / 3]]))


def test_each_object_gets_the_query_that_fits_it_best_all_together() -> None:
    predicted = boxes((0.3, 0.3, 0.2, 0.2), (0.32, 0.3, 0.2, 0.2), (0.9, 0.9, 0.1, 0.1))
    there = targets(boxes((0.3, 0.3, 0.2, 0.2), (0.34, 0.3, 0.2, 0.2)), [0, 0])
    assigned = one_to_one(torch.zeros(1, 3, 2), predicted, there)
    assert assigned.weights.tolist() == [[1, 1, 0]]
    assert assigned.objects[0, :2].tolist() == [0, 1]
    assert assigned.scores[0].tolist() == pytest.approx([1, 0.18 / 0.22, 0])
    # Where both boxes fit alike the score decides.
    sure = torch.tensor([[[-3.0, 0], [3.0, 0], [0, 0]]])
    one = targets(boxes((0.31, 0.3, 0.2, 0.2)), [0])
    assert one_to_one(sure, predicted, one).weights.tolist() == [[0, 1, 0]]


def test_several_cells_within_an_object_answer_for_it_and_for_the_nearer_box() -> None:
    cells = _cells(torch.device("cpu"))
    predicted = torch.cat([cells, torch.full_like(cells, 0.25)], dim=1)[None]
    there = targets(
        boxes((0.3, 0.3, 0.3, 0.3), (0.7, 0.7, 0.2, 0.3), (0.5, 0.5, 0.9, 0.9)), [0, 1, 1], present=[True, True, False]
    )
    assigned = one_to_many(torch.full((1, len(cells), 2), -4.0), predicted, cells, there, most=5)
    chosen = assigned.weights[0] > 0
    assert int(chosen.sum()) == 10
    for i in (0, 1):
        mine = chosen & (assigned.objects[0] == i)
        assert bool(((cells[mine] - there.boxes[0, i, :2]).abs() < there.boxes[0, i, 2:] / 2).all())
        best = overlaps(predicted[0, mine], there.boxes[0, i])[0].max()
        assert assigned.scores[0, mine].max() == pytest.approx(float(best))


def test_a_sure_prediction_on_an_ignored_object_costs_nothing_elsewhere_it_does() -> None:
    predicted = boxes((0.3, 0.3, 0.2, 0.2), (0.7, 0.7, 0.2, 0.2))
    logits = torch.tensor([[[-9.0, 9.0], [9.0, -9.0]]])
    where = boxes((0.3, 0.3, 0.2, 0.2), (0.7, 0.7, 0.2, 0.2))
    unclear = targets(where, [0, 0], present=[False, True], ignored=[True, False])
    away = targets(where, [0, 0], present=[False, True])
    for there, expected in ((unclear, 0.0), (away, 0.75 * 9)):
        found, placed = losses(logits, predicted, there, one_to_one(logits, predicted, there))
        assert float(found) == pytest.approx(expected, abs=0.01)
        assert float(placed) == pytest.approx(0, abs=1e-5)


@pytest.fixture(scope="module")
def pool(scenes_of: ScenesOf) -> ScenePool:
    return scenes_of("train", 8)


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return Detector(DetectorSection(steps=1, batch_size=8, width=32, queries=12))


def test_targets_follow_the_window(pool: ScenePool) -> None:
    rows = np.arange(2)
    windows = np.array([[0, 0, 1, 1], [0.25, 0.0, 0.75, 1.0]], np.float32)
    there = _targets(pool, rows, windows, torch.device("cpu"))
    whole = there.boxes[0, there.present[0]].numpy()
    x1, y1, x2, y2 = pool.boxes(0).T
    np.testing.assert_allclose(whole, np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], 1), atol=1e-6)
    names = [CATEGORIES[i] for i in there.labels[0, there.present[0]]]
    assert names == [o.category for o in pool.truths[0].objects]
    for i, (left, _, right, _) in enumerate(pool.boxes(1)):
        inside = max(0.0, min(right, 0.75) - max(left, 0.25)) / (right - left)
        assert bool(there.present[1, i]) == (inside >= 0.35)
        assert bool(there.ignored[1, i]) == (0 < inside < 0.35)


def test_every_weight_learns_from_the_first_step(pool: ScenePool, detector: Detector) -> None:
    model = detector.build()
    rng = np.random.default_rng(0)
    for _ in range(2):  # the last layers of the box heads begin at zero, so those before them learn one step later
        model.zero_grad()
        total, parts = detector.loss(model, pool, np.arange(8), rng, 0.0)
        total.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight.sub_(1e-3 * weight.grad)
    assert np.isfinite(list(parts.values())).all()
    assert [name for name, weight in model.named_parameters() if not weight.grad.abs().sum() > 0] == []


def test_the_saved_model_is_found_by_the_recipe_and_read_by_the_expert(
    tmp_path: Path, pool: ScenePool, detector: Detector
) -> None:
    assert recipe("detector") is Detector
    model = detector.build().eval()
    with torch.no_grad():
        for head in model.class_embed:  # scores that differ
            head.weight.normal_()
        figures = detector.evaluate(model, pool)
        before = detect(model, pool)
    assert all(0 <= value <= 1 for value in figures.values())
    detector.save(model, tmp_path)
    assert next(model.parameters()).dtype == torch.float32
    expert = ClosedSet(ClosedSetSection(model=str(tmp_path), floor=0.0))
    expert.open("cpu")
    assert tuple(expert._detector._model.config.id2label.values()) == CATEGORIES
    assert expert._detector._model.config.dtype == torch.float32
    prior = expert.measure([Image.fromarray(pool.images[0]).resize((SIDE, SIDE))])[0]["boxes"]
    assert max(row["score"] for row in prior) == pytest.approx(float(before[0].scores.max()), abs=0.02)
