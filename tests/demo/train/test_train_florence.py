"""The Florence-2 recipe: answers that the expert parses back into the truth, targets of cells, and the saved folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.captions import brief_caption
from demo.metrics.florence import caption_figures, region_figures
from demo.shapes import CATEGORIES
from demo.train import augment
from demo.train.pool import ScenePool
from demo.train.recipes.florence import (
    GRID,
    MEAN,
    SIZE,
    STD,
    FlorenceRecipe,
    FlorenceTrainSection,
    cell_targets,
    view,
)
from experts.florence import BINS, CAPTION, REGIONS, Florence, FlorenceSection, plain, region_boxes
from tests.demo.train.conftest import ScenesOf
from tests.demo.train.learning import every_part_falls_and_reaches_every_weight

SMALL = FlorenceTrainSection(
    steps=1,
    batch_size=4,
    stages=(32, 32, 64),
    depths=(1, 1, 1),
    width=64,
    hidden=64,
    encoder_layers=1,
    decoder_layers=1,
)


@pytest.fixture(scope="module")
def scenes(scenes_of: ScenesOf) -> ScenePool:
    return scenes_of("validation", 12)


@pytest.fixture(scope="module")
def recipe() -> FlorenceRecipe:
    return FlorenceRecipe(SMALL)


def test_right_answers_are_parsed_into_the_truth(recipe: FlorenceRecipe, scenes: ScenePool) -> None:
    truths = [view(scenes, row, augment.WHOLE).truth for row in range(len(scenes))]
    captions: list[str] = []
    regions: list[dict] = []
    for truth in truths:
        for task, ids in ((CAPTION, recipe._words(brief_caption(truth))), (REGIONS, recipe._regions(truth))):
            answer = recipe.tokenizer.decode([2, *ids, 2], skip_special_tokens=False)
            found = recipe.processor.post_process_generation(text=answer, task=task, image_size=(BINS, BINS))[task]
            captions += [found] * (task == CAPTION)
            regions += [found] * (task == REGIONS)
    assert captions == [brief_caption(truth) for truth in truths]
    assert set(caption_figures(captions, truths).values()) == {1.0}
    boxes = [region_boxes(found) for found in regions]
    assert set(region_figures(boxes, truths).values()) == {1.0}
    for row, found in enumerate(boxes):
        corners = [[box[corner] for corner in ("x1", "y1", "x2", "y2")] for box in found]
        np.testing.assert_allclose(corners, scenes.boxes(row), atol=1.1 / BINS)


def test_every_word_is_one_token_of_short_prompts_and_answers(recipe: FlorenceRecipe, scenes: ScenePool) -> None:
    assert all(len(prompt) == 13 for prompt in recipe.prompts.values())
    for row in range(len(scenes)):
        text = brief_caption(view(scenes, row, augment.WHOLE).truth)
        assert len(recipe._words(text)) == len(text.replace(".", " .").split())


def test_a_window_is_a_scene_of_its_own(scenes: ScenePool) -> None:
    row = next(row for row, truth in enumerate(scenes.truths) if len(truth.objects) > 1)
    x1, y1, x2, y2 = scenes.boxes(row)[1]
    seen = view(scenes, row, np.array([x1, y1, x2, y2], np.float32))
    item = seen.truth.objects[seen.kept.index(1)]
    assert item.visible_box == (0, 0, BINS, BINS)
    assert "in the centre in the foreground" in brief_caption(seen.truth)
    beside = np.array([x1 + 0.7 * (x2 - x1), y1, min(1.0, x2 + 0.2), y2], np.float32)
    assert 1 not in view(scenes, row, beside).kept


def test_cells_know_their_object_its_rank_and_its_edges(scenes: ScenePool) -> None:
    rows = np.arange(len(scenes))
    where = augment.windows(np.random.default_rng(0), len(rows), 0.75)
    views = [view(scenes, row, window) for row, window in zip(rows.tolist(), where, strict=True)]
    targets = cell_targets(scenes, rows, where, views)
    for i, seen in enumerate(views):
        for rank, item in enumerate(seen.truth.objects):
            here = targets.ranks[i] == rank
            assert (targets.kinds[i][here] == 1 + CATEGORIES.index(item.category)).all()
        y, x = (~targets.boxes[i, ..., 0].isnan()).nonzero(as_tuple=True)
        left, top, right, bottom = targets.boxes[i, y, x].T
        corners = torch.stack([(x + 0.5) / GRID - left, (y + 0.5) / GRID - top, left + right, top + bottom])
        known = {(*o.visible_box[:2], *np.subtract(o.visible_box[2:], o.visible_box[:2])) for o in seen.truth.objects}
        assert {tuple(corner.tolist()) for corner in (corners.T * BINS).round().int()} <= known


def test_every_part_of_the_loss_falls_and_reaches_every_weight(recipe: FlorenceRecipe, scenes: ScenePool) -> None:
    every_part_falls_and_reaches_every_weight(recipe, scenes, steps=12)


def test_the_expert_says_what_the_saved_model_says(recipe: FlorenceRecipe, scenes: ScenePool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = recipe.build().eval()
    with torch.no_grad():
        assert set(recipe.evaluate(model, scenes)) >= {"caption_named_f1", "caption_setting", "region_f1"}
    recipe.save(model, tmp_path)
    assert all(value.dtype != torch.float32 for value in _saved(tmp_path).values() if value.is_floating_point())

    expert = Florence(FlorenceSection(model=str(tmp_path), text=False, beams=1, max_new_tokens=96))
    expert.open("cpu")
    table = expert._model.get_input_embeddings().weight.float()
    torch.testing.assert_close(table, model.embeddings().detach(), atol=1e-3, rtol=1e-3)
    assert expert._model.lm_head.weight is expert._model.get_input_embeddings().weight
    small = augment.cut(scenes.images[:3], np.tile(augment.WHOLE, (3, 1)), SIZE)
    priors = expert.measure([Image.fromarray(image) for image in small])
    pixels = augment.plain(small, MEAN, STD)
    with torch.no_grad():
        answers = recipe._answers(expert._model, pixels, CAPTION)
    assert [prior["caption"] for prior in priors] == [plain(answer) for answer in answers]
    assert all(prior["lines"] == [] for prior in priors)


def _saved(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")
