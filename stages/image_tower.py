"""The image tower of an open_clip model: RGB pictures in, unit vectors out."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schemas.errors import RequestError
from schemas.identity import model_identity
from schemas.section import ModelRef

_HUB = "hf-hub:"
_FOLDER = "local-dir:"


def tower_identity(model: str, pretrained: str | None, revision: str | None) -> str:
    """What decides the vectors: `folder:<sha256>`, `org/name@revision`, or open_clip's own name and weights tag.

    Raises:
        RequestError: the folder does not exist.
    """
    if folder := _folder(model):
        return model_identity(ModelRef(model=str(folder)))
    if model.startswith(_HUB):
        return model_identity(ModelRef(model=model.removeprefix(_HUB), revision=revision))
    return f"open_clip:{model}@{pretrained}"


def check_tower(model: str, pretrained: str | None) -> None:
    """Look, without loading weights, for a name that open_clip does not know.

    Raises:
        RequestError: no such folder, model or weights tag.
    """
    if folder := _folder(model):
        if not (folder / "open_clip_config.json").is_file():
            raise RequestError(
                f"embed.model: {folder} holds no open_clip_config.json. Give a folder that open_clip saved, "
                "a hub model as hf-hub:org/name, or one of open_clip's own names."
            )
        return
    if model.startswith(_HUB):
        return
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tags:
        raise RequestError(
            f"embed.model: open_clip has no weights for {model}. Its models are listed by "
            "`python -c 'import open_clip; print(open_clip.list_pretrained())'`; a hub model is hf-hub:org/name."
        )
    if pretrained not in tags:
        raise RequestError(f"embed.pretrained: {model} has no weights {pretrained}. It has: {', '.join(tags)}.")


class ImageTower:
    """Loads the model once; weights are never left random.

    Attributes:
        width: length of a vector.
    """

    def __init__(self, model: str, pretrained: str | None, revision: str | None, precision: str, device: str) -> None:
        """Load by open_clip's name and tag, hub id (`hf-hub:org/name`) or folder (a path, or `local-dir:path`).

        Raises:
            OSError, RuntimeError, ValueError: the weights cannot be had or do not fit.
        """
        import open_clip

        folder = _folder(model)
        if model.startswith(_HUB) and revision:
            # open_clip's own hub loader knows no revisions
            from huggingface_hub import snapshot_download

            folder = Path(
                snapshot_download(model.removeprefix(_HUB), revision=revision, allow_patterns=["open_clip_*"])
            )
        self._model, self._preprocess = open_clip.create_model_from_pretrained(
            f"{_FOLDER}{folder}" if folder else model,
            pretrained=None if folder or model.startswith(_HUB) else pretrained,
            precision=precision,
            device=device,
        )
        self._model.eval()
        self._dtype = open_clip.get_input_dtype(precision)
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


def _folder(model: str) -> Path | None:
    if model.startswith(_FOLDER):
        path = Path(model.removeprefix(_FOLDER))
    elif model.startswith(("/", "./", "../", "~")) or Path(model).is_dir():
        path = Path(model).expanduser()
    else:
        return None
    if not path.is_dir():
        raise RequestError(
            f"embed.model: the model folder {path} does not exist. Give an existing folder, a hub model as "
            "hf-hub:org/name, or one of open_clip's own names."
        )
    return path
