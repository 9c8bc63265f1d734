"""The towers that start from CLIP give what CLIP's give."""

import open_clip
import pytest
import torch
from transformers import Dinov2Backbone, Dinov2Config, Owlv2Config, Owlv2Model

from demo.train.towers import NORM_EPS, dinov2_backbone, owlv2_towers, patch_deviation

WIDTH, SIZE, TOKENS = 64, 48, 12


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    """A small tower of each kind, every weight away from its first value, so that none can be forgotten."""
    torch.manual_seed(0)
    vision = {"image_size": SIZE, "patch_size": 16, "width": WIDTH, "layers": 2, "head_width": 32}
    text = {"context_length": TOKENS, "vocab_size": 30, "width": 32, "heads": 2, "layers": 2}
    model = open_clip.CLIP(embed_dim=48, vision_cfg=vision, text_cfg=text).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return model


@torch.no_grad()
def test_owlv2s_towers_are_clips(clip: open_clip.CLIP) -> None:
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"}
    text = {"hidden_size": 32, "intermediate_size": 128, "vocab_size": 30, "max_position_embeddings": TOKENS}
    vision = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "image_size": SIZE, "patch_size": 16}
    ends = {"bos_token_id": 28, "eos_token_id": 29, "pad_token_id": 29}
    model = Owlv2Model(
        Owlv2Config(text_config=tower | text | ends, vision_config=tower | vision, projection_dim=32)
    ).eval()
    model.load_state_dict(owlv2_towers(clip.state_dict()) | {"logit_scale": clip.logit_scale})

    tokens = torch.tensor([[28, 3, 4, 29, *[29] * 8], [28, 7, 8, 9, 10, 29, *[29] * 6], [28, 5, 29, *[29] * 9]])
    read, known = model.get_text_features(tokens).pooler_output, clip.encode_text(tokens)
    assert torch.allclose(read @ read.T, known @ known.T, rtol=1e-4, atol=1e-4)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    seen = model.vision_model(pixels)
    look = clip.visual.ln_post(clip.visual.transformer(clip.visual._embeds(pixels)))
    assert torch.allclose(model.vision_model.post_layernorm(seen.last_hidden_state), look, atol=1e-4)
    image = model.visual_projection(seen.pooler_output)
    assert torch.allclose(image @ read.T, clip.encode_image(pixels) @ known.T, rtol=1e-3, atol=1e-3)


def test_a_space_too_small_for_the_texts_is_refused(clip: open_clip.CLIP) -> None:
    state = clip.state_dict() | {"text_projection": torch.zeros(32, 16)}
    with pytest.raises(ValueError, match="loses"):
        owlv2_towers(state)


@torch.no_grad()
def test_dinov2s_backbone_is_nearly_clips_tower(clip: open_clip.CLIP) -> None:
    pixels = torch.randn(4, 3, SIZE, SIZE)
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=16,
        layerscale_value=1.0,
        layer_norm_eps=NORM_EPS,
        out_indices=[1, 2],
        reshape_hidden_states=False,
    )
    model = Dinov2Backbone(config).eval()
    weights = dinov2_backbone(clip.state_dict(), patch_deviation(clip.state_dict(), pixels))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith(("lambda1", "mask_token")) for name in missing)
    look = clip.visual.ln_post(clip.visual.transformer(clip.visual._embeds(pixels)))
    tokens = model(pixels).feature_maps[-1]
    # The class token's norm is exact, the patches' deviations differ by a few per cent.
    assert torch.nn.functional.cosine_similarity(tokens, look, dim=-1).min() > 0.97
