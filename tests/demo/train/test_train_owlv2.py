"""The OWLv2 recipe: its pictures and texts are those of the expert, and one category stays out of its training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Owlv2ImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from demo.split import HELD_OUT
from demo.train import augment
from demo.train.pool import ScenePool
from demo.train.recipes import owlv2
from demo.train.recipes.clip import ClipRecipe, ClipSection
from demo.train.recipes.owlv2 import SIZE, Owlv2Recipe, Owlv2Section
from experts.open_set import OpenSet, OpenSetSection
from tests.demo.train.conftest import ScenesOf
from tests.demo.train.learning import autocast


@pytest.fixture(scope="module")
def scenes(scenes_of: ScenesOf) -> ScenePool:
    return scenes_of("validation", 8)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Owlv2Recipe:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    clip = ClipRecipe(ClipSection(steps=1, width=64, layers=2, text_width=32, text_layers=1, embed_dim=48))
    clip.save(clip.build(), folder)
    return Owlv2Recipe(Owlv2Section(steps=1, batch_size=8, start=folder, held_out=HELD_OUT))


def whole(scenes: ScenePool) -> tuple[np.ndarray, np.ndarray]:
    windows = np.broadcast_to(augment.WHOLE, (len(scenes), 4))
    return windows, owlv2.coverage(windows, scenes.truths)


def test_pictures_lie_in_the_square_as_the_processor_lays_them(scenes: ScenePool) -> None:
    windows, covered = whole(scenes)
    ours = augment.plain(
        owlv2.padded(np.asarray(scenes.images), windows, covered, np.random.default_rng(0)),
        OPENAI_CLIP_MEAN,
        OPENAI_CLIP_STD,
    )
    processor = Owlv2ImageProcessor(size={"height": SIZE, "width": SIZE})
    pictures = [
        Image.fromarray(image).resize((one.width, one.height))
        for image, one in zip(scenes.images, scenes.truths, strict=True)
    ]
    theirs = processor(images=pictures, return_tensors="pt").pixel_values
    assert (ours - theirs).abs().mean() < 0.1
    black = -torch.tensor(OPENAI_CLIP_MEAN) / torch.tensor(OPENAI_CLIP_STD)
    shown = (theirs - black[:, None, None]).abs().amax(dim=1) > 0.3
    for one, (width, height) in zip(shown, (covered * SIZE).tolist(), strict=True):
        assert abs(one.any(dim=0).nonzero().max() + 1 - width) <= 3
        assert abs(one.any(dim=1).nonzero().max() + 1 - height) <= 3


def test_what_lies_outside_is_black_whatever_the_light(scenes: ScenePool) -> None:
    _, covered = whole(scenes)
    pixels = torch.ones(len(scenes), 3, SIZE, SIZE)
    owlv2.blacken(pixels, covered)
    processor = Owlv2ImageProcessor(size={"height": SIZE, "width": SIZE})
    black = processor(images=Image.new("RGB", (SIZE, SIZE)), return_tensors="pt").pixel_values[0, :, 0, 0]
    for one, (width, height) in zip(pixels, np.rint(covered * SIZE).astype(int).tolist(), strict=True):
        assert (one[:, :height, :width] == 1).all()
        assert torch.allclose(one[:, height:], black[:, None, None], atol=1e-5)
        assert torch.allclose(one[:, :, width:], black[:, None, None], atol=1e-5)


def test_boxes_follow_window_and_padding(recipe: Owlv2Recipe, scenes: ScenePool) -> None:
    """In the square, as long as its longer side, a box keeps its shape in pixels."""
    windows, covered = whole(scenes)
    targets = recipe.targets(scenes, np.arange(len(scenes)), windows, covered)
    for row, truth in enumerate(scenes.truths):
        for j, item in enumerate(truth.objects):
            x1, y1, x2, y2 = item.visible_box
            box = np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]) / max(truth.width, truth.height)
            assert targets.boxes[row, j].numpy() == pytest.approx(box, abs=1e-5)
            assert targets.ignored[row, j] == (item.category == HELD_OUT)
            assert targets.present[row, j] == (item.category != HELD_OUT)
        assert not targets.present[row, len(truth.objects) :].any()


def test_the_held_out_name_is_never_asked_for(
    recipe: Owlv2Recipe, scenes: ScenePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()
    queries = Owlv2Recipe.queries

    def noted(self: Owlv2Recipe, model: torch.nn.Module, names: list[str]) -> torch.Tensor:
        asked.update(names)
        return queries(self, model, names)

    monkeypatch.setattr(Owlv2Recipe, "queries", noted)
    model = recipe.build()
    with torch.autocast("cpu", torch.bfloat16):
        recipe.loss(model, scenes, np.arange(8), np.random.default_rng(0), 0.0)
    assert HELD_OUT not in asked
    assert {"car", "beach"} <= asked


def test_it_learns_and_the_expert_sees_the_same_model(recipe: Owlv2Recipe, scenes: ScenePool, tmp_path: Path) -> None:
    model = recipe.build()
    frozen = {name: p.clone() for name, p in model.named_parameters() if name.startswith("owlv2.text")}
    optimizer = torch.optim.AdamW([group | {"lr": 2e-3} for group in recipe.groups(model)])
    curve = []
    for step in range(20):
        with autocast(step, 20):
            loss, parts = recipe.loss(model, scenes, np.arange(8), np.random.default_rng(step), step / 20)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(parts)
    for name in curve[0]:
        assert np.mean([parts[name] for parts in curve[-5:]]) < np.mean([parts[name] for parts in curve[:2]]), name
    assert all(torch.equal(frozen[name], p) for name, p in model.named_parameters() if name in frozen)

    recipe.save(model.eval(), tmp_path)
    expert = OpenSet(OpenSetSection(model=str(tmp_path)))
    expert.open("cpu")
    expert._detector._embed({"car", "beach"})
    with torch.no_grad():
        ours = recipe.queries(model, ["car", "beach"])[0]
    assert torch.allclose(torch.stack([expert._detector._queries[tag] for tag in ("car", "beach")]), ours, atol=5e-3)
    figures = recipe.evaluate(model, scenes)
    assert {"map50", "held_out_ap50"} <= figures.keys()


def test_only_a_category_can_be_held_out() -> None:
    with pytest.raises(ValueError, match="held_out"):
        Owlv2Recipe(Owlv2Section(steps=1, held_out="teapot"))
