"""A single file of weights, local or on the hub: which it is, and the tensors in it."""

import os
from pathlib import Path
from typing import Any

from schemas.errors import RequestError
from schemas.identity import file_sha256

_WRAPPERS = ("state_dict", "weights", "model")
_HUB_PARTS = 3


def expanded(place: str) -> str:
    """The place with `~` as the user's home."""
    return os.path.expanduser(place)  # noqa: PTH111  a file of the hub is no Path


def _is_hub(place: str) -> bool:
    return len(place.split("/")) >= _HUB_PARTS and not place.startswith(("/", ".")) and not Path(place).exists()


def weights_identity(place: str, revision: str | None, setting: str) -> str:
    """`file:<sha256>` of a local file, `org/name/FILE@revision` of one on the hub.

    Args:
        setting: dotted name of the setting that gives the place, for the error.

    Raises:
        RequestError: there is no such local file.
    """
    if _is_hub(place):
        return f"{place}@{revision or 'main'}"
    if not Path(place).is_file():
        raise RequestError(
            f"{setting}: there is no file {place}. Give a file that is there, or one of the hub as org/name/FILE."
        )
    return f"file:{file_sha256(Path(place))}"


def read_weights(place: str, revision: str | None) -> dict[str, Any]:
    """The tensors of a state dict by name, on the CPU; the dict may lie under `state_dict`, `weights` or `model`.

    No code in the file runs: torch reads it with weights_only.

    Raises:
        OSError: the file is not there, or the hub does not give it; whatever the hub client raises.
        ValueError, RuntimeError, pickle.UnpicklingError: it holds something else.
    """
    path = _fetched(place, revision)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    for name in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise ValueError(f"it holds no state dict, but a {type(loaded).__name__} without one")
    return dict(loaded)


def _fetched(place: str, revision: str | None) -> Path:
    if not _is_hub(place):
        return Path(place)
    from huggingface_hub import hf_hub_download

    org, name, file = place.split("/", 2)
    return Path(hf_hub_download(f"{org}/{name}", file, revision=revision))
