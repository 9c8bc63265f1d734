"""Weights are kept as fp16, which halves what ships, and computed with as float32 unless a loader asks otherwise."""

import copy
from pathlib import Path
from typing import Any


def save_half(model: Any, folder: Path) -> None:
    """Save a transformers model as fp16 safetensors; its configuration asks for float32.

    The library writes the dtype of the weights into the configuration and computes in it by default, and few CPU
    kernels know fp16.
    """
    import torch

    copy.deepcopy(model).half().cpu().to(memory_format=torch.contiguous_format).save_pretrained(folder)
    config = folder / "config.json"
    text = config.read_text(encoding="utf-8").replace('"dtype": "float16"', '"dtype": "float32"')
    config.write_text(text, encoding="utf-8")
