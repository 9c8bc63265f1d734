"""The captioner's weights as they ship: what was trained, a byte a weight; its tower is the demo's CLIP model's.

Each row of a matrix has a scale, the 127th part of its largest weight. A vector is kept in 16 bits.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from demo.captioner.start import captioner
from demo.captioner.tokenizer import make_tokenizer
from fusion.model.modeling import FusionForConditionalGeneration
from fusion.model.processing import FusionProcessor

WEIGHTS, CARD = "packed.safetensors", "README.md"
_TOWER, _TIED = "vision.towers.", "language_model.lm_head.weight"
_SCALE, _STEPS = ".scale", 127


def pack(model: Path, out: Path) -> int:
    """Write the trained weights and the card of a model's folder; returns the bytes of the weights.

    Raises:
        ValueError: the model has another shape than `unpack` makes.
    """
    state: dict[str, Tensor] = {}
    for file in sorted(model.glob("*.safetensors")):
        state |= load_file(file)
    trained = {name: weight.float() for name, weight in state.items() if not name.startswith(_TOWER)}
    fresh, _ = captioner(make_tokenizer())
    shapes = {name: weight.shape for name, weight in fresh.state_dict().items()}
    if wrong := [name for name, weight in trained.items() if shapes.get(name) != weight.shape]:
        raise ValueError(f"{model} is no captioner of the demo's shape: {wrong[0]}")
    packed: dict[str, Tensor] = {}
    for name, weight in trained.items():
        if weight.ndim == 2:
            scale = (weight.abs().amax(dim=1) / _STEPS).half().clamp(min=torch.finfo(torch.half).tiny)
            packed[name + _SCALE] = scale
            packed[name] = (weight / scale.float()[:, None]).round().clamp(-_STEPS, _STEPS).to(torch.int8)
        else:
            packed[name] = weight.half()
    out.mkdir(parents=True, exist_ok=True)
    save_file(packed, out / WEIGHTS, metadata={"format": "pt"})
    (out / WEIGHTS).chmod(0o644)
    (out / CARD).write_bytes((model / CARD).read_bytes())
    return (out / WEIGHTS).stat().st_size


def load_packed(packed: Path) -> tuple[FusionForConditionalGeneration, FusionProcessor]:
    """The whole captioner, float32, and its processor.

    Args:
        packed: folder that `pack` wrote.

    Raises:
        ValueError: its weights are of another shape than this version's.
    """
    tensors = load_file(packed / WEIGHTS)
    state = {name: _unpacked(name, tensors) for name in tensors if not name.endswith(_SCALE)}
    model, processor = captioner(make_tokenizer())
    missing, unexpected = model.load_state_dict(state, strict=False)
    lacking = [name for name in missing if not name.startswith(_TOWER) and name != _TIED]
    if lacking or unexpected:
        raise ValueError(f"{packed} is not a captioner of this version: {[*lacking, *unexpected][:3]}")
    return model, processor


def unpack(packed: Path, folder: Path) -> None:
    """Write the whole captioner as transformers and vLLM load it."""
    model, processor = load_packed(packed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / CARD).write_bytes((packed / CARD).read_bytes())


def _unpacked(name: str, tensors: dict[str, Tensor]) -> Tensor:
    weight = tensors[name].float()
    return weight * tensors[name + _SCALE].float()[:, None] if name + _SCALE in tensors else weight
