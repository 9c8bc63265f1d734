"""A RAM++ checkpoint of reduced width in the official layout, and a CLIP text encoder as narrow: seeded random weights.

Every key is filled in sorted order from one generator, so that whoever runs the official code can make the same.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.drawn import filled

DESCRIPTIONS = 51
TEXT_WIDTH = 512


@dataclass(frozen=True)
class Sizes:
    """Of a checkpoint: Swin's first width, depths and heads; the tagging head's width and feed-forward width."""

    labels: int
    embed: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: int
    inner: int
    patch: int = 4
    window: int = 12


SMALL = Sizes(labels=24, embed=16, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), hidden=64, inner=128)
PUBLISHED = Sizes(labels=4585, embed=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), hidden=768, inner=3072)
TAGS = [f"tag {i}" for i in range(SMALL.labels)]
THRESHOLDS = [round(0.5 + 0.01 * i, 2) for i in range(SMALL.labels)]

CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": TEXT_WIDTH,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}


def shapes(sizes: Sizes = SMALL) -> dict[str, tuple[int, ...]]:
    """Every key that inference needs, named as in `ram_plus_swin_large_14m.pth`."""
    found: dict[str, tuple[int, ...]] = {"label_embed": (sizes.labels * DESCRIPTIONS, TEXT_WIDTH), "reweight_scale": ()}

    def linear(name: str, outs: int, ins: int) -> None:
        found.update({f"{name}.weight": (outs, ins), f"{name}.bias": (outs,)})

    def norm(name: str, width: int) -> None:
        found.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    stem, last = "visual_encoder.patch_embed", sizes.embed * 2 ** (len(sizes.depths) - 1)
    found[f"{stem}.proj.weight"] = (sizes.embed, 3, sizes.patch, sizes.patch)
    found[f"{stem}.proj.bias"] = (sizes.embed,)
    norm(f"{stem}.norm", sizes.embed)
    for i, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads, strict=True)):
        width = sizes.embed * 2**i
        for j in range(depth):
            block = f"visual_encoder.layers.{i}.blocks.{j}"
            norm(f"{block}.norm1", width)
            linear(f"{block}.attn.qkv", 3 * width, width)
            linear(f"{block}.attn.proj", width, width)
            found[f"{block}.attn.relative_position_bias_table"] = ((2 * sizes.window - 1) ** 2, heads)
            norm(f"{block}.norm2", width)
            linear(f"{block}.mlp.fc1", 4 * width, width)
            linear(f"{block}.mlp.fc2", width, 4 * width)
        if width < last:
            norm(f"visual_encoder.layers.{i}.downsample.norm", 4 * width)
            found[f"visual_encoder.layers.{i}.downsample.reduction.weight"] = (2 * width, 4 * width)
    norm("visual_encoder.norm", last)
    linear("image_proj", TEXT_WIDTH, last)
    linear("wordvec_proj", sizes.hidden, TEXT_WIDTH)
    linear("fc", 1, sizes.hidden)
    for i in range(2):
        layer = f"tagging_head.encoder.layer.{i}"
        linear(f"{layer}.crossattention.self.query", sizes.hidden, sizes.hidden)
        linear(f"{layer}.crossattention.self.key", sizes.hidden, TEXT_WIDTH)
        linear(f"{layer}.crossattention.self.value", sizes.hidden, TEXT_WIDTH)
        linear(f"{layer}.crossattention.output.dense", sizes.hidden, sizes.hidden)
        norm(f"{layer}.crossattention.output.LayerNorm", sizes.hidden)
        linear(f"{layer}.intermediate.dense", sizes.inner, sizes.hidden)
        linear(f"{layer}.output.dense", sizes.hidden, sizes.inner)
        norm(f"{layer}.output.LayerNorm", sizes.hidden)
    return found


def official_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict of a RAM++ whose scores lie apart: labels of length 1, a sharp softmax over the descriptions."""
    weights = filled(shapes(), seed)
    embed = weights["label_embed"]
    weights["label_embed"] = embed / embed.norm(dim=-1, keepdim=True)
    weights["reweight_scale"] = torch.tensor(float(np.log(1 / 0.02)))
    weights["wordvec_proj.weight"] *= 200
    for name in weights:
        if ".query.weight" in name or ".key.weight" in name:
            weights[name] *= 2
    return weights


def save_ram_plus(folder: Path, seed: int = 0, lists: bool = True) -> Path:
    """The folder, with the checkpoint under key `model` and beside it, where `lists`, tags and thresholds."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": official_weights(seed)}, folder / "ram_plus_swin_large_14m.pth")
    if lists:
        save_lists(folder)
    return folder


def save_lists(folder: Path, tags: Sequence[str] = TAGS, thresholds: Sequence[Any] = THRESHOLDS) -> None:
    """Under the authors' names; as theirs, the tags have no newline at their end."""
    (folder / "ram_tag_list.txt").write_text("\n".join(tags), encoding="utf-8")
    (folder / "ram_tag_list_threshold.txt").write_text("".join(f"{value}\n" for value in thresholds))


def save_text_encoder(folder: Path, seed: int = 1) -> Path:
    """The folder of an open_clip model with the real tokenizer and embeddings as wide as RAM++'s."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    config = CLIP_CONFIG["model_cfg"]
    model = open_clip.CLIP(**config)
    weights = filled({name: tuple(value.shape) for name, value in model.state_dict().items()}, seed)
    weights["token_embedding.weight"] *= 10
    (folder / "open_clip_config.json").write_text(json.dumps(CLIP_CONFIG))
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def pictures(seed: int = 2) -> list[Image.Image]:
    """Two small pictures of noise, one wide and one tall."""
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((30, 52), (410, 90))]


def descriptions() -> list[dict[str, list[str]]]:
    """Three tags of four texts each, in the official form, the first of which names the tag; one is over-long."""
    return [
        {tag: [f"a photo of a {tag}.", f"A {tag} is {colour} and {shape}.", f"Look for {shape} edges.", long]}
        for tag, colour, shape, long in (
            ("Traffic cone", "orange", "pointed", "It stands on roads."),
            ("Ale", "brown", "round", "A drink in a glass. " * 40),
            ("Zeppelin", "silver", "long", "It floats, slowly, above the town's roofs!"),
        )
    ]
