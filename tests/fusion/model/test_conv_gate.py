import pytest
import torch

from benchmarks.fusion.tiny import CANVAS, tiny_config, tiny_model
from fusion.model.modeling import FusionForConditionalGeneration

BOX = torch.tensor([[8.0, 16.0, 90.0, 77.0]])


@pytest.fixture
def pixels():
    return torch.randn(2, 3, CANVAS, CANVAS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fresh():
    torch.manual_seed(0)
    return FusionForConditionalGeneration(tiny_config("conv_gate")).eval().vision


def moved(connector):
    return {name for name, weight in connector.named_parameters() if weight.grad.any()}


def test_at_first_the_detail_tower_adds_nothing(fresh, pixels):
    connector = fresh.connector
    tokens, fine = torch.randn(2, 16, 64), torch.randn(2, 64, 4, 4)
    assert torch.equal(connector.fuse(tokens, fine), tokens)
    coarse = torch.nn.functional.interpolate(pixels, size=56, mode="bilinear")
    (alone,) = fresh.towers.vision.states(coarse, [-2])
    assert torch.equal(torch.stack(fresh(pixels)), connector.projector(alone))


def test_zeros_let_gradients_in_one_step_after_the_other(fresh, pixels):
    connector = fresh.connector
    fresh.towers.requires_grad_(False)
    optimiser = torch.optim.SGD(connector.parameters(), lr=0.1)
    every = {name for name, _ in connector.named_parameters()}
    closed = {
        f"fuse.{name}.{kind}" for name in ("slow_conv", "fast_conv", "gate.0", "gate.2") for kind in ("weight", "bias")
    }
    for expected in (every - closed, every):
        optimiser.zero_grad()
        torch.cat(fresh(pixels, None, [BOX, BOX])).square().sum().backward()
        assert moved(connector) == expected
        optimiser.step()


def test_the_gate_is_one_number_a_picture():
    fuse = tiny_model("conv_gate").vision.connector.fuse
    tokens, fine = torch.randn(2, 16, 64), torch.randn(2, 64, 4, 4)
    with torch.inference_mode():
        both, alone = fuse(tokens, fine), fuse(tokens[1:], fine[1:])
        bare = fuse(tokens, torch.zeros_like(fine))
        fuse.gate[2].weight.zero_()
        fuse.gate[2].bias.fill_(100)  # tanh is 1
        opened = fuse(tokens, fine)
    assert (both[1:] - alone).abs().max() < 1e-5
    shares = (both - bare) / (opened - bare)
    steady = (opened - bare).abs() > 0.1
    for share, clear in zip(shares, steady, strict=True):
        assert share[clear].std() < 1e-3


def test_a_boxs_token_is_its_own_and_what_is_in_it(pixels):
    vision = tiny_model("conv_gate").vision
    boxes = [torch.cat([BOX, BOX / 2]), BOX]
    with torch.inference_mode():
        both = vision(pixels, None, boxes)
        alone = vision(pixels[:1], None, [BOX / 2])
        without = vision(pixels)
    assert [len(one) for one in both] == [18, 17]
    assert (both[0][17] - alone[0][16]).abs().max() < 1e-5
    assert (both[0][16] - both[1][16]).abs().max() > 0.01
    for picture, bare in zip(both, without, strict=True):
        assert torch.equal(picture[:16], bare)


def test_boxes_end_at_the_canvas(pixels):
    vision = tiny_model("conv_gate").vision
    with torch.inference_mode():
        (beyond,) = vision(pixels[:1], None, [torch.tensor([[-50.0, 10.0, 60.0, 4000.0]])])
        (inside,) = vision(pixels[:1], None, [torch.tensor([[0.0, 10.0, 60.0, CANVAS]])])
    assert torch.equal(beyond, inside)
