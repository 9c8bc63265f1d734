"""Parts that a training of any connector starts from, as `densefusion train` takes them."""

import shutil
from pathlib import Path

import torch
from transformers import TimmBackbone, TimmBackboneConfig

from demo.captioner.packing import load_packed
from demo.captioner.start import tower
from demo.train.towers import load_clip
from demo.weights import TRAINED

DETAIL = "test_convnext"
"""timm's smallest ConvNeXt."""


def make_parts(folder: Path, seed: int = 0) -> None:
    """Write the folders vision, florence, detail and text.

    The towers `vision` and `florence` are the demo's trained ones. `detail`, a convolutional tower, knows nothing yet.
    `text` is the captioner's language model, which has learnt to read notes and another connector's tokens.
    """
    tower(load_clip(TRAINED / "clip")).save_pretrained(folder / "vision")
    shutil.copytree(TRAINED / "florence", folder / "florence", dirs_exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        TimmBackbone(TimmBackboneConfig(backbone=DETAIL, out_indices=[0, 1, 2, 3])).save_pretrained(folder / "detail")
    model, processor = load_packed(TRAINED / "captioner")
    model.language_model.save_pretrained(folder / "text")
    processor.tokenizer.save_pretrained(folder / "text")
