import copy
import functools

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageTextToText, CLIPVisionConfig, SiglipVisionConfig

from benchmarks.fusion.tiny import (
    CANVAS,
    CONNECTORS,
    SIDE,
    convnet,
    florence,
    tiny_config,
    tiny_model,
    tiny_processor,
    vit,
)
from fusion.model import register
from fusion.model.connectors import connector_of
from fusion.model.modeling import FusionForConditionalGeneration, FusionVision
from schemas.errors import RequestError

register()
VARIANTS = [(name, False) for name in CONNECTORS] + [(name, True) for name in ("mlp", "s2", "sti", "sci", "dci")]
IDS = [f"{name}{' siglip' * siglip}" for name, siglip in VARIANTS]
BOXES = [[(0.0, 0.0, 1.0, 1.0), (0.2, 0.3, 0.5, 0.9)], []]
"""Of two pictures, 0 to 1; the second's becomes one of zeros."""


@functools.cache
def model_of(name, siglip=False):
    """Not to be changed."""
    return tiny_model(name, siglip=siglip)


def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)) for size in ((60, 90, 3), (70, 50, 3))]


def inputs(config, **more):
    processor = tiny_processor(config)
    if connector_of(config.connector).takes_boxes:
        more.setdefault("boxes", BOXES)
    texts = ["<s>USER: <image>\nWhat is there? ASSISTANT:"] * 2
    return processor(text=texts, images=pictures(), return_tensors="pt", padding=True, **more)


def seen(vision, made):
    boxes = made["boxes"].split(made["box_counts"].tolist()) if "boxes" in made else None
    return vision(made["pixel_values"], made["image_sizes"], boxes)


def options(name, given, siglip=False):
    config = tiny_config(name, siglip=siglip)
    config.connector_options = {**config.connector_options, **given}
    return config


@pytest.mark.parametrize(("name", "siglip"), VARIANTS, ids=IDS)
def test_a_picture_becomes_as_many_tokens_as_are_counted(name, siglip):
    model = model_of(name, siglip)
    config, connector = model.config, connector_of(name)
    made = inputs(config)
    side = connector.canvas(config)
    assert side == {"s2": 3 * SIDE, "conv_gate": CANVAS, "dbfusion": CANVAS}.get(name, SIDE)
    assert made["pixel_values"].shape == (2, 3, side, side)
    with torch.inference_mode():
        tokens = seen(model.vision, made)
    boxes = [2, 1] if connector.takes_boxes else [0, 0]
    base = 16 + 2 * 5 if name == "sti" else 16
    assert connector.tokens(config) == base
    assert [tuple(one.shape) for one in tokens] == [(base + own, 64) for own in boxes]
    assert [int(row.sum()) for row in made["input_ids"] == config.image_token_id] == [base + own for own in boxes]
    assert model(**made).logits.isfinite().all()


def unseen(name, config):
    """Whether it belongs to what comes after the last layer but one of a ViT."""
    last = getattr(config.vision_config, "num_hidden_layers", 0) - 1
    return any(part in name for part in (f"vision.model.encoder.layers.{last}.", ".post_layernorm.", ".model.head."))


@pytest.mark.parametrize(("name", "siglip"), VARIANTS, ids=IDS)
def test_gradients_reach_every_weight_that_sees(name, siglip):
    model = copy.deepcopy(model_of(name, siglip))
    (torch.cat(seen(model.vision, inputs(model.config))) ** 2).sum().backward()
    weights = dict(model.vision.named_parameters())
    assert {n for n, p in weights.items() if p.grad is None} == {n for n in weights if unseen(n, model.config)}
    still = {n for n, p in weights.items() if p.grad is not None and not p.grad.any()}
    # Keys' biases cancel in a softmax, up to rounding.
    assert not {n for n in still if not n.endswith("k_proj.bias")}


@pytest.mark.parametrize(("name", "siglip"), VARIANTS, ids=IDS)
def test_a_saved_model_is_the_same_again(name, siglip, tmp_path):
    model = model_of(name, siglip)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert isinstance(again, FusionForConditionalGeneration)
    assert again.vision.connector.options == model.vision.connector.options
    for kind in ("named_parameters", "named_buffers"):
        was, now = (dict(getattr(one, kind)()) for one in (model, again))
        assert was.keys() == now.keys()
        assert all(torch.equal(was[name], now[name]) for name in was)
    made = inputs(model.config)
    with torch.inference_mode():
        # Some kernels add up in another order where weights lie at other addresses, and a file's are not aligned.
        assert (again(**made).logits - model(**made).logits).abs().max() < 1e-4


@pytest.mark.parametrize("name", CONNECTORS)
def test_the_picture_decides_the_words(name):
    model = model_of(name)
    made = inputs(model.config)
    with torch.inference_mode():
        first, second = model.generate(**made, max_new_tokens=12, do_sample=False)[:, -12:].tolist()
    assert first != second


@pytest.mark.parametrize("name", CONNECTORS)
def test_bfloat16_towers_give_nearly_the_same_tokens(name):
    model = model_of(name)
    made = inputs(model.config)
    with torch.inference_mode():
        full = torch.cat(seen(model.vision, made))
        half = torch.cat(seen(copy.deepcopy(model.vision).to(torch.bfloat16), made))
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).norm() < 0.1 * full.norm()


@pytest.mark.parametrize("name", CONNECTORS)
def test_a_fresh_connector_starts_as_published(name):
    torch.manual_seed(0)
    model = FusionForConditionalGeneration(tiny_config(name))
    for layer in (one for one in model.vision.connector.modules() if isinstance(one, nn.Linear)):
        bound = layer.in_features**-0.5  # torch's own, which the authors keep; transformers' is 0.02 and no bias
        assert 0.9 * bound < layer.weight.abs().max() <= bound or layer.weight.numel() < 64
        assert layer.bias.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("mlp", {"layers": [1]}, r"connector mlp has no option layers. It has: layer \(connector_options\)"),
        ("mlp", {"layer": 5}, r"mlp is to read layer 5 .* the tower of 4 layers .* has hidden states 0 to 4"),
        ("mlp", {"layer": "last"}, r"connector_options.layer of the connector mlp is 'last': "),
        ("s2", {"scales": [2, 3]}, r"scales that start with 1 and grow .*: \[2, 3\] do not"),
        ("s2", {"scales": [1, 3, 2]}, r"\[1, 3, 2\] do not"),
        ("s2", {"scales": []}, r"\[\] do not"),
        ("sti", {"layers": [7, 15]}, r"sti is to read layer 7, 15 .* 0 to 4"),
        ("sti", {"pool": 17}, r"average every 17 tokens .* has 16 patches"),
        ("sti", {"pool": 0}, r"connector_options.pool of the connector sti is 0: .* greater than or equal to 1"),
        ("sci", {"layers": [1, -6]}, "sci is to read layer -6"),
        ("dci", {"groups": 3}, "dci cannot divide 4 hidden states into 3 equal groups: a tower of 4 layers"),
        ("dci", {"groups": 8}, "cannot divide 4 hidden states into 8"),
        ("conv_gate", {"canvas": 768}, "needs a canvas of 128 px, and connector_options.canvas is 768"),
        ("conv_gate", {"canvas": 130}, "connector_options.canvas is 130"),
        ("dbfusion", {"canvas": 100}, "a multiple of 32 px, up to 1600 px"),
        ("dbfusion", {"canvas": 768}, "are 583 tokens, and this Florence-2 .* reads 64"),
        ("dbfusion", {"prompts": [[0, 99, 2]]}, "have the token 99, and this Florence-2 knows 16 tokens"),
        ("dbfusion", {"prompts": []}, "connector_options.prompts of the connector dbfusion is "),
        ("dbfusion", {"left_out": "mean"}, "connector_options.left_out of the connector dbfusion is 'mean'"),
    ],
)
def test_options_that_cannot_be_are_refused_when_the_model_is_made(name, given, words):
    with pytest.raises(RequestError, match=words):
        FusionVision(options(name, given))


@pytest.mark.parametrize(
    ("name", "part", "tower", "words"),
    [
        ("mlp", "vision_config", florence, "looks through a ViT, and vision_config describes a florence2"),
        ("dbfusion", "vision_config", vit, "looks through a Florence, and vision_config describes a clip_vision_model"),
        (
            "conv_gate",
            "detail_config",
            lambda: None,
            "two towers, and detail_config is not given. Name a timm backbone",
        ),
        ("sci", "detail_config", convnet, "one tower, and detail_config is given. Leave it out"),
    ],
)
def test_towers_that_a_connector_cannot_look_through_are_refused(name, part, tower, words):
    config = tiny_config(name)
    setattr(config, part, tower())
    with pytest.raises(RequestError, match=words):
        FusionVision(config)


def test_an_unknown_connector_is_refused():
    with pytest.raises(
        RequestError, match=r"no connector perceiver\. There are: mlp, s2, sti, sci, dci, conv_gate, db"
    ):
        connector_of("perceiver")


@pytest.mark.parametrize(
    ("name", "given"), [("mlp", {"layer": 0}), ("sci", {"layers": [4, 0, -1]}), ("dci", {"groups": 1})]
)
def test_options_within_the_tower_are_taken(name, given):
    vision = FusionVision(options(name, given)).eval()
    assert vision(torch.randn(1, 3, SIDE, SIDE))[0].shape == (16, 64)


@pytest.mark.parametrize(
    ("tower", "group", "tokens"),
    [
        (CLIPVisionConfig(num_hidden_layers=24, image_size=336, patch_size=14), 12, (576, 720)),
        (SiglipVisionConfig(num_hidden_layers=27, image_size=384, patch_size=14), 13, (729, 911)),
    ],
    ids=["clip", "siglip"],
)
def test_published_defaults_fit_the_published_towers(tower, group, tokens):
    config = tiny_config("mlp")
    config.vision_config = tower
    made = {name: connector_of(name)(config) for name in ("mlp", "sti", "sci", "dci")}
    assert made["dci"].group == group
    assert (made["mlp"].tokens(config), made["sti"].tokens(config)) == tokens
    assert [one.projector[0].in_features // tower.hidden_size for one in made.values()] == [1, 1, 3, 3]


def test_weights_that_a_checkpoint_lacks_start_as_published(tmp_path):
    model_of("conv_gate").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if ".fuse." not in name},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    again = FusionForConditionalGeneration.from_pretrained(tmp_path)
    fuse = again.vision.connector.fuse
    assert not fuse.slow_proj.weight.any() and not fuse.slow_conv.bias.any()
    assert fuse.slow_conv.weight.abs().max() > 0.1
    assert torch.equal(again.vision.connector.projector[0].weight, weights["vision.connector.projector.0.weight"])
