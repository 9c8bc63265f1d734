import pytest
import torch
from transformers import Florence2Model, TimmBackboneConfig

from benchmarks.fusion.tiny import CANVAS, PROMPTS, convnet, florence, vit
from fusion.model.towers import ConvNet, Florence, ViT, stages_of, tower_of
from schemas.errors import RequestError


@pytest.mark.parametrize("siglip", [False, True], ids=["clip", "siglip"])
def test_states_are_counted_as_transformers_counts_them(siglip):
    tower = ViT(vit(siglip)).eval()
    pixels = torch.randn(2, 3, tower.side, tower.side)
    with torch.inference_mode():
        wanted = tower.model(pixels, output_hidden_states=True).hidden_states
        depth = len(wanted) - 1
        found = tower.states(pixels, [-2, *range(depth + 1), 1])
    for layer, state in zip([depth - 1, *range(depth + 1), 1], found, strict=True):
        assert state.shape == (2, 16, 64)
        assert torch.equal(state, wanted[layer][:, 0 if siglip else 1 :])


def test_blocks_after_the_last_that_is_asked_for_do_not_run():
    tower = ViT(vit()).eval()
    tower.model.encoder.layers[3].forward = None
    tower.states(torch.randn(1, 3, tower.side, tower.side), [0, -2])


def test_maps_of_a_convolutional_tower_are_its_stages_raw():
    tower = ConvNet(convnet()).eval()
    widths, strides = stages_of(convnet())
    assert (widths, strides) == (tower.widths, tower.strides) == ([24, 32, 48, 64], [4, 8, 16, 32])
    pixels = torch.randn(1, 3, CANVAS, CANVAS)
    with torch.inference_mode():
        maps = tower.maps(pixels)
        trunk = tower.model._backbone
        last = trunk.stages_3(maps[2])
    assert [tuple(one.shape) for one in maps] == [
        (1, width, CANVAS // stride, CANVAS // stride) for width, stride in zip(widths, strides, strict=True)
    ]
    assert torch.equal(maps[3], last)


@pytest.mark.parametrize("pad", [None, 1])
def test_depth_and_breadth_are_what_florence_2_computes_by_itself(pad):
    whole = Florence2Model(florence()).eval()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.normal_(0, 0.3)
    tower = Florence(florence(), whole)
    pixels, tokens = torch.randn(2, 3, CANVAS, CANVAS), 17
    ids = torch.tensor([[whole.config.image_token_id] * tokens + list(PROMPTS[0])] * 2)
    mask = None if pad is None else (ids != pad).long()
    with torch.inference_mode():
        wanted = whole(input_ids=ids, pixel_values=pixels, attention_mask=mask).encoder_last_hidden_state
        depth = tower.depth(pixels)
        breadth = tower.breadth(depth, PROMPTS[0], pad)
    assert depth.shape == breadth.shape == (2, tokens, 32)
    assert (breadth - wanted[:, :tokens]).abs().max() < 1e-5


def test_unknown_towers_are_refused():
    with pytest.raises(RequestError, match=r"kind bart is not known\. There are: clip_vision_model, "):
        tower_of(florence().text_config)
    with pytest.raises(RequestError, match=r"backbone nonesuch \(detail_config\) cannot be made: Unknown model"):
        stages_of(TimmBackboneConfig(backbone="nonesuch"))
