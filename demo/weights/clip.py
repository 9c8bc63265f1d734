"""A small open_clip ViT whose random features tell pictures apart.

A random tower puts all pictures into one narrow cone. Its last projection is therefore fitted, without training, so
that the features of a few hundred drawn pictures are centred and white: copies stay together, others spread out.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from demo.weights.alphabet import clip_vocabulary

SIZE = 128
CONTEXT = 32
PICTURES = 384
LEAST_VARIANCE = 1e-4  # of the largest direction's; the rest is noise


def make(folder: Path) -> None:
    """Write an open_clip folder with random weights: configuration, weights, tokenizer."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPTokenizer

    vocabulary = clip_vocabulary()
    model_cfg = {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": SIZE,
            "patch_size": 16,
            "width": 192,
            "head_width": 48,
            "layers": 4,
            "pool_type": "avg",
            "final_ln_after_pool": True,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": len(vocabulary),
            "width": 128,
            "heads": 4,
            "layers": 2,
            "hf_tokenizer_name": "clip",
        },
    }
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    settings = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": mean, "std": std, "interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2))
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CONTEXT).save_pretrained(folder)
    torch.manual_seed(0)
    model = open_clip.CLIP(**model_cfg)
    transform = open_clip.image_transform(SIZE, is_train=False, mean=mean, std=std)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(100))  # where CLIP's training ends
    whiten(model.eval(), torch.stack([transform(picture) for picture in pictures()]))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def whiten(model, pixels) -> None:  # type: ignore[no-untyped-def]
    """Set the last norm's bias and the projection so that features of `pixels` (n, 3, h, w) are centred and white."""
    import torch

    tower = model.visual
    with torch.no_grad():
        width, out = tower.proj.shape
        tower.proj.data, projection = torch.eye(width), tower.proj.data
        features = torch.cat([model.encode_image(part) for part in pixels.split(64)]).double()
        tower.proj.data = projection
        mean = features.mean(dim=0)
        variance, directions = torch.linalg.eigh(torch.cov(features.T, correction=0))
        variance, directions = variance.flip(0)[:out], directions.flip(1)[:, :out]
        tower.ln_post.bias -= mean.float()
        tower.proj.copy_(directions / variance.clamp(min=variance[0] * LEAST_VARIANCE).sqrt())


def pictures() -> Iterator[Image.Image]:
    """Gradients with rectangles, ellipses and noise; seeded."""
    rng = np.random.default_rng(0)

    def colour() -> tuple[int, ...]:
        return tuple(rng.integers(0, 256, 3).tolist())

    for _ in range(PICTURES):
        sky = Image.new("RGB", (1, 2), colour())
        sky.putpixel((0, 1), colour())
        picture = sky.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(picture)
        for _ in range(rng.integers(0, 9)):
            x, y = rng.integers(-20, SIZE, 2).tolist()
            width, height = rng.integers(4, SIZE * 3 // 4, 2).tolist()
            shape = pen.rectangle if rng.random() < 0.5 else pen.ellipse
            shape((x, y, x + width, y + height), fill=colour())
        noisy = np.asarray(picture) + rng.normal(0, rng.uniform(0, 20), (SIZE, SIZE, 3))
        yield Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
