"""The image tower of an open_clip model: RGB pictures in, unit vectors out."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experts.open_clip_model import CONFIG_FILE, is_own_name, load_open_clip, open_clip_name
from schemas.errors import RequestError
from schemas.identity import model_identity
from schemas.section import ModelRef


def tower_identity(ref: ModelRef, pretrained: str | None) -> str:
    """What decides the vectors: `folder:<sha256>`, `org/name@revision`, or `open_clip:<name>@<weights tag>`.

    Raises:
        RequestError: the folder does not exist.
    """
    return f"open_clip:{ref.model}@{pretrained}" if is_own_name(ref.model) else model_identity(ref)


def check_tower(ref: ModelRef, pretrained: str | None) -> None:
    """Look, without loading weights, for a name that open_clip does not know.

    Raises:
        RequestError: no such folder, model or weights tag.
    """
    if not is_own_name(ref.model):
        model_identity(ref)
        folder = Path(ref.model)
        if folder.is_dir() and not (folder / CONFIG_FILE).is_file():
            raise RequestError(
                f"embed.model: {folder} holds no {CONFIG_FILE}. Give a folder that open_clip saved, a hub id "
                "(org/name), or one of open_clip's own names."
            )
        return
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(ref.model)
    if not tags:
        raise RequestError(
            f"embed.model: open_clip has no weights for {ref.model}. Its models are listed by "
            "`python -c 'import open_clip; print(open_clip.list_pretrained())'`; a hub model is org/name."
        )
    if pretrained not in tags:
        raise RequestError(f"embed.pretrained: {ref.model} has no weights {pretrained}. It has: {', '.join(tags)}.")


class ImageTower:
    """Loads the model once.

    Attributes:
        width: length of a vector.
    """

    def __init__(self, ref: ModelRef, pretrained: str | None, precision: str, device: str) -> None:
        """Load the model on `cpu` or `cuda`.

        Raises:
            OSError, RuntimeError, ValueError: the weights cannot be had or do not fit.
        """
        import torch

        self._model, self._preprocess = load_open_clip(open_clip_name(ref), device, precision, pretrained)
        self._dtype = getattr(torch, precision)
        self._device = device
        self.width = int(self.encode([self.prepare(Image.new("RGB", (8, 8)))]).shape[1])

    def prepare(self, image: Image.Image) -> Any:
        """The model's own resize, crop and normalisation: a float32 tensor of (3, height, width). Thread-safe."""
        return self._preprocess(image)

    def encode(self, prepared: list[Any]) -> np.ndarray:
        """float16 vectors of (n, width), of unit length before the cast.

        Raises:
            FloatingPointError: the model gives NaN or infinity.
        """
        import torch

        batch = torch.stack(prepared).to(self._device, self._dtype)
        with torch.inference_mode():
            features = self._model.encode_image(batch).float()
            unit = torch.nn.functional.normalize(features, dim=-1)
        if not torch.isfinite(unit).all():
            raise FloatingPointError("the image tower gave vectors that are not finite")
        return unit.half().cpu().numpy()
