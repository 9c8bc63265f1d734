"""The tagger's recipe: what it is told about a picture, and that the expert reads what it saves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.shapes import CATEGORIES
from demo.train.augment import WHOLE
from demo.train.pool import ScenePool
from demo.train.recipes.tagger import LABELS, THRESHOLD, Tagger, TaggerSection, cell_shares, figures, targets
from experts.tags import Tags, TagsSection
from tests.demo.train.conftest import ScenesOf


@pytest.fixture(scope="module")
def scenes(scenes_of: ScenesOf) -> ScenePool:
    return scenes_of("validation", 16)


def test_tags_of_whole_pictures_are_the_truths(scenes: ScenePool) -> None:
    rows = np.arange(len(scenes))
    wanted, known = targets(scenes, rows, np.tile(WHOLE, (len(rows), 1)))
    assert known.all()
    for truth, row in zip(scenes.truths, wanted, strict=True):
        assert {LABELS[i] for i in np.flatnonzero(row)} == {truth.setting, *(o.category for o in truth.objects)}


def test_what_a_window_cuts_is_not_asked_for_and_what_it_leaves_out_is_absent(scenes: ScenePool) -> None:
    row = next(
        row for row, truth in enumerate(scenes.truths) if len({o.category for o in truth.objects}) == len(truth.objects)
    )
    item = scenes.truths[row].objects[0]
    number = LABELS.index(item.category)
    x1, y1, x2, y2 = scenes.boxes(row)[0]

    def told(*window: float) -> tuple[float, float]:
        wanted, known = targets(scenes, np.array([row]), np.array([window], np.float32))
        return float(wanted[0, number]), float(known[0, number])

    assert told(x1, y1, x2, y2) == (1, 1)
    assert told(x1, y1, x1 + 0.3 * (x2 - x1), y2) == (0, 0)
    assert told(x1, y1, x1 + 0.05 * (x2 - x1), y2) == (0, 1)


def test_cells_say_how_much_of_each_category_they_show(scenes: ScenePool) -> None:
    rows = np.arange(len(scenes))
    shares = cell_shares(scenes, rows, np.tile(WHOLE, (len(rows), 1)), 10)
    assert shares.shape == (len(rows), 1 + len(CATEGORIES), 10, 10)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    for truth, owners, cells in zip(scenes.truths, scenes.owners, shares, strict=True):
        for category in CATEGORIES:
            own = [i for i, o in enumerate(truth.objects, 1) if o.category == category]
            area = np.isin(owners, own).mean()
            assert cells[1 + CATEGORIES.index(category)].mean() == pytest.approx(area, abs=0.015)


def test_figures_count_tags() -> None:
    wanted = np.zeros((2, len(LABELS)), bool)
    found = wanted.copy()
    wanted[0, [0, 1]] = wanted[1, [0, 2]] = True
    found[0, [0, 1]] = found[1, [0, 3]] = True
    assert figures(found, wanted) == pytest.approx(
        {"micro_f1": 0.75, "precision": 0.75, "recall": 0.75, "least_f1": 0.0}
    )


def test_the_expert_reads_what_it_saves(scenes: ScenePool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    recipe = Tagger(TaggerSection(steps=1, batch_size=4, channels=(8, 16, 16, 32), layers=(1, 1, 1, 1)))
    model = recipe.build()
    loss, parts = recipe.loss(model, scenes, np.arange(4), np.random.default_rng(0), 0.0)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert float(loss.detach()) == pytest.approx(parts["tags"] + recipe.config.cells_weight * parts["cells"], rel=1e-4)
    torch.nn.init.normal_(model.tagger.get_classifier().weight, std=3.0)
    model.eval()
    with torch.no_grad():
        ours = recipe.evaluate(model, scenes)
    recipe.save(model, tmp_path)

    tagger = Tags(TagsSection(family="timm", model=str(tmp_path), threshold=THRESHOLD, top_k=len(LABELS)))
    tagger.open("cpu")
    images = [Image.fromarray(image) for image in scenes.images]
    priors = [tagger.decide(prior, {}) for prior in tagger.measure(images)]
    found = np.array([[label in {t["tag"] for t in prior["tags"]} for label in LABELS] for prior in priors])
    wanted, _ = targets(scenes, np.arange(len(scenes)), np.tile(WHOLE, (len(scenes), 1)))
    theirs = figures(found, wanted > 0)
    assert theirs == pytest.approx(ours, abs=0.02)  # weights are halved
