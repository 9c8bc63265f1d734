"""A small open_clip ViT."""

import json
from pathlib import Path

from demo.weights.alphabet import clip_vocabulary

SIZE = 128
CONTEXT = 32


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
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
