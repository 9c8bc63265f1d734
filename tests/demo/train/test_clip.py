"""The open_clip recipe: what it tells its model, and that the saved folder is the model that was trained."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from demo.palette import OBJECT_COLOURS
from demo.shapes import CATEGORIES
from demo.train.pool import ScenePool
from demo.train.recipes import clip
from demo.train.recipes.clip import ClipRecipe, ClipSection, ClipTrainer
from experts.open_clip_model import load_open_clip, open_clip_name
from schemas.section import ModelRef
from tests.demo.train.conftest import ScenesOf
from tests.demo.train.learning import every_part_falls_and_reaches_every_weight

SMALL = ClipSection(steps=1, batch_size=4, width=64, layers=1, text_width=32, text_layers=1, embed_dim=32)


@pytest.fixture(scope="module")
def scenes(scenes_of: ScenesOf) -> ScenePool:
    return scenes_of("validation", 16)


@pytest.fixture(scope="module")
def recipe() -> ClipRecipe:
    return ClipRecipe(SMALL)


def test_every_part_of_the_loss_falls_and_reaches_both_towers(recipe: ClipRecipe, scenes: ScenePool) -> None:
    every_part_falls_and_reaches_every_weight(recipe, scenes, steps=14)


def test_the_saved_folder_is_the_trained_model(recipe: ClipRecipe, scenes: ScenePool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = recipe.build().eval()
    recipe.save(model, tmp_path)
    name = open_clip_name(ModelRef(model=str(tmp_path)))
    loaded, transform = load_open_clip(name, "cpu", "float32")
    wide = Image.fromarray(scenes.images[0]).resize((400, 200))
    pixels = torch.stack([transform(wide), transform(Image.fromarray(scenes.images[0]))])
    assert pixels.shape == (2, 3, clip.SIZE, clip.SIZE)
    assert (pixels[0] - pixels[1]).abs().mean() < 0.1  # squashed, not cropped
    written = ["a photo of car", "this is a beach. a red ball on the left."]
    tokens = open_clip.get_tokenizer(name)(written)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.encode_image(pixels, normalize=True), model.look(pixels)[0], atol=5e-3, rtol=0
        )
        read = model.read(recipe.tokens(written))
        torch.testing.assert_close(loaded.encode_text(tokens, normalize=True), read, atol=5e-3, rtol=0)


def test_figures_are_shares(recipe: ClipRecipe, scenes: ScenePool) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        figures = recipe.evaluate(recipe.build().eval(), scenes)
    assert {"purity_8", "recall_at_1", "tag_f1", "found_cropped", "cell_accuracy"} <= set(figures)
    assert all(-1 <= value <= 1 for value in figures.values())


def test_dense_targets_follow_the_window(scenes: ScenePool) -> None:
    rows, whole = np.array([0, 1]), np.array([[0, 0, 1, 1]] * 2, np.float32)
    kinds, colours, disparity, box = clip.dense_targets(scenes, rows, whole)
    assert kinds.shape == colours.shape == disparity.shape == (2, clip.FINE, clip.FINE)
    assert ((kinds == 0) == (colours == -100)).all()
    for i, row in enumerate(rows):
        said = {(int(k), int(c)) for k, c in zip(kinds[i].flatten(), colours[i].flatten(), strict=True) if k}
        true = {
            (CATEGORIES.index(o.category) + 1, list(OBJECT_COLOURS).index(o.colour)) for o in scenes.truths[row].objects
        }
        assert said and said <= true
        middles = (torch.arange(clip.GRID) + 0.5) / clip.GRID
        y, x = torch.nonzero(~box[i, ..., 0].isnan())[0]
        left, top, right, bottom = box[i, y, x]
        found = [middles[x] - left, middles[y] - top, middles[x] + right, middles[y] + bottom]
        assert np.abs(scenes.boxes(row) - np.array(found)).max(1).min() < 1e-5
    half = np.array([[0, 0, 0.5, 0.5]] * 2, np.float32)
    zoomed = clip.dense_targets(scenes, rows, half)
    quarter = slice(0, clip.FINE // 2)
    assert (zoomed[0][:, ::2, ::2] == kinds[:, quarter, quarter]).float().mean() > 0.8
    torch.testing.assert_close(
        disparity.mean(), torch.tensor(scenes.disparity[:2].mean() / 0.2).float(), rtol=0.02, atol=0
    )


def test_a_caption_that_is_right_for_another_image_is_not_pushed_away_from_it() -> None:
    images = torch.nn.functional.normalize(torch.randn(2, 8, generator=torch.manual_seed(0)), dim=1)
    written = images.flip(0)  # each caption lies at the other image
    only_own = torch.eye(2, dtype=torch.bool)
    scale = torch.tensor(20.0)
    assert clip._caption_loss(images, written, only_own, scale) > 5
    assert clip._caption_loss(images, written, torch.ones(2, 2, dtype=torch.bool), scale) == 0


def test_first_weights_of_the_patches_are_a_filter_bank(recipe: ClipRecipe) -> None:
    tower = recipe.build().clip.visual
    bank = tower.conv1.weight.detach().flatten(1)
    products = bank @ bank.T
    off = products - products.diag().diag()
    assert off.abs().max() < 1e-4 * products.diag().max()
    assert bank[0].std() == pytest.approx(0, abs=1e-6)  # the first filter is the mean


@pytest.mark.parametrize("seed", range(3))
def test_best_f1_is_the_best_of_all_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, holds = rng.random((6, 5)).astype(np.float32), rng.random((6, 5)) < 0.4
    f1, threshold = clip.best_f1(torch.from_numpy(scores), torch.from_numpy(holds))

    def at(t: float) -> float:
        said = scores >= t
        return 2 * (said & holds).sum() / (said.sum() + holds.sum())

    assert f1 == pytest.approx(max(at(t) for t in scores.flatten()), abs=1e-6)
    assert at(threshold) == pytest.approx(f1, abs=1e-6)


def test_purity_of_clusters_that_are_the_classes_and_of_one_that_holds_two() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4, 16, dtype=np.float32)
    classes = np.repeat(np.arange(4), 20)
    rows = centres[classes] + 0.01 * rng.standard_normal((80, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert clip.purity_of_clusters(rows, classes, 4) == 1
    assert clip.purity_of_clusters(rows, np.arange(80) % 2, 4) == pytest.approx(0.5)


def test_trainer_says_what_it_saw_in_the_shapes_it_promises(recipe: ClipRecipe) -> None:
    torch.manual_seed(0)
    model = recipe.build()
    assert isinstance(model, ClipTrainer)
    images, tokens = model.look(torch.randn(2, 3, clip.SIZE, clip.SIZE))
    assert images.norm(dim=1).allclose(torch.ones(2), atol=1e-5)
    kinds, colours, disparity, box = model.dense(tokens)
    assert kinds.shape == (2, clip.FINE, clip.FINE, 1 + len(CATEGORIES))
    assert colours.shape == (2, clip.FINE, clip.FINE, len(OBJECT_COLOURS))
    assert disparity.shape == (2, clip.FINE, clip.FINE)
    assert box.shape == (2, clip.GRID, clip.GRID, 4)
