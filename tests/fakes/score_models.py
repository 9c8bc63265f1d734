"""Models of random weights for the score experts: an open_clip tower, heads, a transformers classifier, a timm file."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

WIDTH = 24
SIDE = 32
_VISION = {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
_TEXT = {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1}


def tower(folder: Path, seed: int = 0) -> Path:
    """An open_clip folder whose image embeddings have WIDTH numbers."""
    from open_clip import CLIP
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    config = {"embed_dim": WIDTH, "vision_cfg": _VISION, "text_cfg": _TEXT}
    weights = CLIP(**config).state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {"size": SIDE}}))
    return folder


def head(*modules: nn.Module, seed: int = 0) -> nn.Sequential:
    """The modules in a row, in eval mode; their random weights are as large as their scores lie well apart."""
    torch.manual_seed(seed)
    stack = nn.Sequential(*modules).eval()
    with torch.no_grad():
        for module in stack:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.normal_(module.bias, std=0.5)
    return stack


def saved(path: Path, module: nn.Module, before: str = "layers.") -> Path:
    """The module's state dict in a file, with something before every name."""
    torch.save(OrderedDict((f"{before}{name}", value) for name, value in module.state_dict().items()), path)
    return path


def classifier(folder: Path, labels: list[str], **config: Any) -> Path:
    """A transformers folder: a tiny ViT over squares of SIDE px, with its processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    model = ViTForImageClassification(ViTConfig(image_size=SIDE, patch_size=8, **size, **names, **config))
    nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
