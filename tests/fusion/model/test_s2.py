import torch
from torch.nn import functional

from benchmarks.fusion.tiny import SIDE, tiny_config, tiny_model
from fusion.model.modeling import FusionVision


def features(vision, pixels):
    """What the projector is given: (n, tokens, channels)."""
    given = []
    hook = vision.connector.projector.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    with torch.inference_mode():
        vision(pixels)
    hook.remove()
    return given[0]


def test_each_scale_is_seen_in_windows_that_lie_where_they_were_cut():
    vision = tiny_model("s2").vision
    pixels = torch.randn(2, 3, 3 * SIDE, 3 * SIDE)
    found = features(vision, pixels).unflatten(2, (3, 64))
    for number, scale in enumerate((1, 2, 3)):
        resized = functional.interpolate(pixels, size=SIDE * scale, mode="bicubic")
        rows = []
        for y in range(scale):
            row = []
            for x in range(scale):
                window = resized[:, :, y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE]
                with torch.inference_mode():
                    (state,) = vision.towers.vision.states(window, [-2])
                row.append(state.transpose(1, 2).unflatten(2, (4, 4)))
            rows.append(torch.cat(row, dim=3))
        pooled = functional.avg_pool2d(torch.cat(rows, dim=2), scale).flatten(2).transpose(1, 2)
        assert (found[:, :, number] - pooled).abs().max() < 1e-5


def test_one_scale_is_the_plain_projector():
    model = tiny_model("mlp")
    config = tiny_config("s2")
    config.connector_options = {"scales": [1]}
    vision = FusionVision(config).eval()
    vision.load_state_dict(model.vision.state_dict())
    pixels = torch.randn(1, 3, SIDE, SIDE)
    with torch.inference_mode():
        assert torch.equal(torch.stack(vision(pixels)), torch.stack(model.vision(pixels)))
