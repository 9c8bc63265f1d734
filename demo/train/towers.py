"""The weights of an open_clip ViT in the names of the transformers models that start from it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

State = dict[str, Tensor]

NORM_EPS = 1e-5
"""Of open_clip's layer norms, which are torch's default."""
_CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
"""Parts of a block: open_clip's names and those of transformers' CLIP."""


@dataclass(frozen=True)
class ClipModel:
    """An open_clip folder: its `model_cfg` and its weights, float32."""

    config: dict[str, Any]
    state: State

    @property
    def vision(self) -> dict[str, Any]:
        return self.config["vision_cfg"]

    @property
    def text(self) -> dict[str, Any]:
        return self.config["text_cfg"]


def load_clip(folder: Path) -> ClipModel:
    """Read an open_clip folder (open_clip_config.json, open_clip_model.safetensors) with towers of its own kind."""
    config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
    state = load_file(folder / "open_clip_model.safetensors")
    return ClipModel(config, {name: weight.float() for name, weight in state.items()})


def owlv2_towers(state: Mapping[str, Tensor]) -> State:
    """Both towers of an `Owlv2Model` (hidden_act "gelu") that give what the open_clip model gives.

    OWLv2's class head compares in the width of the text tower, open_clip's projections lead to a space of its own
    size. The text projection P (width, size) is split as P = L Q with orthonormal rows of Q, so that texts x L have the
    norms and products of texts x P; an image v meets them in Q v.

    Raises:
        ValueError: the space of the projections is smaller than the text tower's width.
    """
    text_projection, image_projection = state["text_projection"], state["visual.proj"]
    if text_projection.shape[0] > text_projection.shape[1]:
        raise ValueError(f"a text projection {tuple(text_projection.shape)} loses what OWLv2 would compare")
    basis, upper = torch.linalg.qr(text_projection.T)
    out = {
        "text_projection.weight": upper.contiguous(),
        "visual_projection.weight": (image_projection @ basis).T.contiguous(),
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        **_renamed(state, "ln_final", "text_model.final_layer_norm"),
        **_renamed(state, "visual.ln_pre", "vision_model.pre_layernorm"),
        **_renamed(state, "visual.ln_post", "vision_model.post_layernorm"),
    }
    for prefix, target in (("transformer", "text_model"), ("visual.transformer", "vision_model")):
        out |= _blocks(state, prefix, f"{target}.encoder.layers", "self_attn", _CLIP_BLOCK)
    return out


def clip_vision_model(state: Mapping[str, Tensor]) -> State:
    """A transformers `CLIPVisionModel` (hidden_act "gelu") whose hidden states are those of open_clip's tower."""
    out = {
        "embeddings.class_embedding": state["visual.class_embedding"],
        "embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "embeddings.position_embedding.weight": state["visual.positional_embedding"],
        **_renamed(state, "visual.ln_pre", "pre_layrnorm"),
        **_renamed(state, "visual.ln_post", "post_layernorm"),
    }
    return out | _blocks(state, "visual.transformer", "encoder.layers", "self_attn", _CLIP_BLOCK)


def dinov2_backbone(state: Mapping[str, Tensor], deviation: float) -> State:
    """A `Dinov2Backbone` (layerscale 1, LayerNorm's eps `NORM_EPS`) that gives nearly what open_clip's tower gives.

    DINOv2 has no norm before its blocks. The norm's centring, scale and shift go into the patch projection and the
    positions exactly; its division by each token's deviation becomes one by `deviation` for all patches. The class
    token is the same for every picture and takes the whole norm.

    Args:
        deviation: of the patches before the norm, a typical one; see `patch_deviation`.
    """
    scale, shift = state["visual.ln_pre.weight"], state["visual.ln_pre.bias"]
    positions = state["visual.positional_embedding"]
    first = torch.nn.functional.layer_norm(
        state["visual.class_embedding"] + positions[0], scale.shape, scale, shift, NORM_EPS
    )
    kernel = state["visual.conv1.weight"]
    centred = kernel - kernel.mean(dim=0)
    moved = (positions[1:] - positions[1:].mean(dim=1, keepdim=True)) * scale / deviation
    out = {
        "embeddings.cls_token": first[None, None],
        "embeddings.position_embeddings": torch.cat([torch.zeros_like(first)[None], moved])[None],
        "embeddings.patch_embeddings.projection.weight": centred * scale[:, None, None, None] / deviation,
        "embeddings.patch_embeddings.projection.bias": shift,
        **_renamed(state, "visual.ln_post", "layernorm"),
    }
    names = {"ln_1": "norm1", "ln_2": "norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    names |= {"attn.out_proj": "attention.o_proj"}
    return out | _blocks(state, "visual.transformer", "encoder.layer", "attention", names)


def patch_deviation(state: Mapping[str, Tensor], pixels: Tensor) -> float:
    """The typical deviation of a patch of pictures (n, 3, side, side) before the tower's first norm."""
    kernel = state["visual.conv1.weight"]
    patches = torch.nn.functional.conv2d(pixels, kernel, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    deviation = (patches + state["visual.positional_embedding"][1:]).std(dim=-1, correction=0)
    return float(deviation.reciprocal().mean().reciprocal())


def _blocks(state: Mapping[str, Tensor], prefix: str, target: str, attention: str, names: Mapping[str, str]) -> State:
    """Every residual block of one transformer, its joint projection of queries, keys and values split."""
    depth = sum(name.startswith(f"{prefix}.resblocks.") and name.endswith(".ln_1.weight") for name in state)
    out: State = {}
    for i in range(depth):
        block, place = f"{prefix}.resblocks.{i}", f"{target}.{i}"
        for old, new in names.items():
            out |= _renamed(state, f"{block}.{old}", f"{place}.{new}")
        for kind in ("weight", "bias"):
            parts = state[f"{block}.attn.in_proj_{kind}"].chunk(3)
            for part, name in zip(parts, ("q_proj", "k_proj", "v_proj"), strict=True):
                out[f"{place}.{attention}.{name}.{kind}"] = part.clone()
    return out


def _renamed(state: Mapping[str, Tensor], old: str, new: str) -> State:
    return {f"{new}.{kind}": state[f"{old}.{kind}"] for kind in ("weight", "bias")}
