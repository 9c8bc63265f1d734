"""The depth recipe: its loss, what it learns from, and that the expert reads what it saves."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.train.pool import GRID, ScenePool
from demo.train.recipes.clip import ClipRecipe, ClipSection
from demo.train.recipes.depth import DepthRecipe, DepthSection, aligned, gradients
from experts.depth import Depth, unpacked
from experts.depth import DepthSection as ExpertSection
from tests.demo.train.conftest import ScenesOf
from tests.demo.train.learning import autocast


@pytest.fixture(scope="module")
def scenes(scenes_of: ScenesOf) -> ScenePool:
    return scenes_of("validation", 8)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> DepthRecipe:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    clip = ClipRecipe(ClipSection(steps=1, width=64, layers=6, text_width=32, text_layers=1, embed_dim=32))
    clip.save(clip.build(), folder)
    return DepthRecipe(DepthSection(steps=1, batch_size=8, start=folder))


def test_scale_and_offset_of_a_map_do_not_matter() -> None:
    truth = torch.rand(3, GRID, GRID)
    error = aligned(truth * torch.tensor([2.0, 0.3, 50.0])[:, None, None] - 7) - aligned(truth)
    assert error.abs().max() < 1e-3
    assert (aligned(-truth) - aligned(truth)).abs().mean() > 0.5


def test_gradients_are_of_every_resolution() -> None:
    ramp = torch.arange(16.0).expand(1, 16, 16)
    assert gradients(torch.ones(1, 16, 16)) == 0
    assert gradients(ramp) == 1 + 2 + 4 + 8


def test_it_learns_a_few_scenes_and_the_expert_reads_it(recipe: DepthRecipe, scenes: ScenePool, tmp_path: Path) -> None:
    model = recipe.build()
    optimizer = torch.optim.AdamW([group | {"lr": 2e-3} for group in recipe.groups(model)])
    before = recipe.evaluate(model.eval(), scenes)
    model.train()
    for step in range(30):
        with autocast(step, 30):
            loss, parts = recipe.loss(model, scenes, np.arange(8), np.random.default_rng(step), step / 30)
        assert sum(parts.values()) > 0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        after = recipe.evaluate(model.eval(), scenes)
    assert after["correlation"] > max(0.8, before["correlation"])
    assert after["mean_map_correlation"] == before["mean_map_correlation"] < 1

    recipe.save(model, tmp_path)
    expert = Depth(ExpertSection(model=str(tmp_path), map_size=64))
    expert.open("cpu")
    (prior,) = expert.measure([Image.fromarray(scenes.images[0]).resize((200, 150))])
    assert unpacked(prior).shape == (48, 64)
