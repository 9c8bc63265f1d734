"""The three points that no published code settles are options; what each does."""

import pytest
import torch

from benchmarks.fusion.tiny import CANVAS, PROMPTS, tiny_config, tiny_model
from fusion.model.connectors.dbfusion import PROMPTS as PUBLISHED
from fusion.model.modeling import FusionVision


@pytest.fixture(scope="module")
def model():
    return tiny_model("dbfusion")


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(2, 3, CANVAS, CANVAS, generator=torch.Generator().manual_seed(0))


def features(model, pixels, **given):
    """What the projector is given, (n, 16, 4, 32): depth, then a prompt's states each."""
    config = tiny_config("dbfusion")
    config.connector_options = {**config.connector_options, **given}
    vision = FusionVision(config).eval()
    vision.load_state_dict(model.vision.state_dict())
    seen = []
    vision.connector.projector.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        vision(pixels)
    return seen[0].unflatten(2, (4, 32))


def test_the_published_prompts_are_as_long_as_their_padding():
    assert [len(prompt) for prompt in PUBLISHED] == [14, 14, 14]
    assert [prompt.count(1) for prompt in PUBLISHED] == [1, 4, 0]


def test_the_mean_token_is_left_out_unless_the_last_is(model, pixels):
    tower = model.vision.towers.vision
    with torch.inference_mode():
        depth = tower.depth(pixels)
        breadth = tower.breadth(depth, PROMPTS[1])
    first, last = features(model, pixels), features(model, pixels, left_out="last")
    assert torch.equal(first[:, :, 0], depth[:, 1:]) and torch.equal(last[:, :, 0], depth[:, :-1])
    assert torch.equal(first[:, :, 2], breadth[:, 1:])
    assert torch.equal(first[:, :-1], last[:, 1:])


def test_states_come_in_the_prompts_order(model, pixels):
    order = [2, 0, 1]
    turned = features(model, pixels, prompts=[PROMPTS[i] for i in order])
    assert torch.equal(turned[:, :, 1:], features(model, pixels)[:, :, [1 + i for i in order]])


def test_padding_is_attended_to_unless_it_is_named(model, pixels):
    attended, masked = features(model, pixels), features(model, pixels, pad=1)
    shorter = features(model, pixels, prompts=[[0, 6, 8, 2]] * 3)
    assert (attended[:, :, 2] - masked[:, :, 2]).abs().max() > 0.01
    assert (shorter[:, :, 2] - masked[:, :, 2]).abs().max() < 1e-5
    assert torch.equal(attended[:, :, 0], masked[:, :, 0])
    whole = features(model, pixels, prompts=[PROMPTS[0][:-1]] * 3, pad=1)
    assert (whole[:, :, 1] - features(model, pixels, prompts=[PROMPTS[0][:-1]] * 3)[:, :, 1]).abs().max() < 1e-5
