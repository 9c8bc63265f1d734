"""The demo's models at the input sizes of the models they stand for.

Their nets are small, so what a picture costs besides the model weighs more here than with full-size weights. Tables of
positions are stretched to the larger input; what the models then say is of no interest, only how long it takes.
"""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.weights import TRAINED

SIDES = {"tagger": 384, "owlv2": 960, "detector": 640, "depth": 518, "florence": 768}
"""Input side in pixels: of RAM++ (swin_l 384), OWLv2's models of 16 px patches, RT-DETRv2, Depth Anything V2 (here the
nearest multiple of 16), Florence-2."""


def full_size(family: str, folder: Path) -> Path:
    """A copy of the demo's model of a family under `folder`, of full-size input."""
    made = folder / family
    shutil.copytree(TRAINED / family, made)
    _RESIZE[family](made, SIDES[family])
    return made


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def _tagger(folder: Path, side: int) -> None:
    _edit(folder / "config.json", lambda v: v["pretrained_cfg"].update(input_size=[3, side, side]))


def _processor_size(path: Path, side: int, inside: str | None = None) -> None:
    def change(values: dict[str, Any]) -> None:
        (values[inside] if inside else values)["size"] = {"height": side, "width": side}

    _edit(path, change)


def _owlv2(folder: Path, side: int) -> None:
    _processor_size(folder / "processor_config.json", side, "image_processor")
    _edit(folder / "config.json", lambda v: v["vision_config"].update(image_size=side))
    patch = json.loads((folder / "config.json").read_text())["vision_config"]["patch_size"]
    _stretch(folder, "owlv2.vision_model.embeddings.position_embedding.weight", 1 + (side // patch) ** 2)


def _detector(folder: Path, side: int) -> None:
    _processor_size(folder / "preprocessor_config.json", side)


def _depth(folder: Path, side: int) -> None:
    _processor_size(folder / "preprocessor_config.json", 16 * round(side / 16))


def _florence(folder: Path, side: int) -> None:
    tokens = (side // 16) ** 2 + 1
    most = 2 ** math.ceil(math.log2(tokens + 256))

    def widen(values: dict[str, Any]) -> None:
        values["text_config"]["max_position_embeddings"] = most

    def size(values: dict[str, Any]) -> None:
        values["image_processor"] |= {"size": {"height": side, "width": side}, "image_seq_length": tokens}

    _edit(folder / "config.json", widen)
    _edit(folder / "processor_config.json", size)
    for part in ("encoder", "decoder"):
        _stretch(folder, f"model.language_model.{part}.embed_positions.weight", most + 2)


def _stretch(folder: Path, name: str, rows: int) -> None:
    """Interpolate a table of positions (n, width) to so many rows."""
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    table = weights[name].float().T[None]
    stretched = torch.nn.functional.interpolate(table, rows, mode="linear")[0].T
    weights[name] = stretched.to(weights[name].dtype).contiguous()
    save_file(weights, path, metadata={"format": "pt"})


_RESIZE: dict[str, Callable[[Path, int], None]] = {
    "tagger": _tagger,
    "owlv2": _owlv2,
    "detector": _detector,
    "depth": _depth,
    "florence": _florence,
}
