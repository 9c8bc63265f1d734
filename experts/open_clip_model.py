"""Loads open_clip models: by local folder, by hub id and revision, or by open_clip's own name and weights tag."""

from pathlib import Path
from typing import Any

from schemas.identity import model_identity
from schemas.section import ModelRef

FOLDER_PREFIX = "local-dir:"
CONFIG_FILE = "open_clip_config.json"
_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def is_own_name(model: str) -> bool:
    """Whether a model goes by a name of open_clip's (`ViT-B-32`): no folder, and unlike a hub id without a slash."""
    return "/" not in model and not Path(model).is_dir()


def open_clip_identity(ref: ModelRef, pretrained: str | None) -> str:
    """What decides a model's output: its folder's hash, `org/name@revision`, or `open_clip:<name>@<weights tag>`.

    Raises:
        RequestError: the folder does not exist.
    """
    return f"open_clip:{ref.model}@{pretrained}" if is_own_name(ref.model) else model_identity(ref)


def open_clip_name(ref: ModelRef) -> str:
    """The model as open_clip's loaders take it: `local-dir:FOLDER`, or its own name.

    open_clip's own hub loader takes no revision, so the hub client fetches (or finds in its cache) the config, the
    weights and the tokenizer, and open_clip loads the folder. Raises whatever the hub client raises.
    """
    if is_own_name(ref.model):
        return ref.model
    if Path(ref.model).is_dir():
        return f"{FOLDER_PREFIX}{ref.model}"
    from huggingface_hub import snapshot_download

    def fetch(weights: str) -> Path:
        kinds = ["*.json", "*.txt", "*.model", weights]
        return Path(snapshot_download(ref.model, revision=ref.revision, allow_patterns=kinds))

    folder = fetch("open_clip_model.safetensors")
    if not any(folder.glob("*.safetensors")):
        folder = fetch("open_clip_pytorch_model.bin")
    return f"{FOLDER_PREFIX}{folder}"


def load_open_clip(name: str, device: str, precision: str, pretrained: str | None = None) -> tuple[Any, Any]:
    """(model in eval mode, transform from RGB PIL image to float32 tensor (3, h, w)); weights are never left random.

    Args:
        name: from `open_clip_name`.
        precision: float32, bfloat16 or float16.
        pretrained: weights tag of one of open_clip's own names; a folder has its weights.

    Raises:
        OSError, RuntimeError, ValueError: the weights cannot be had or do not fit.
    """
    import open_clip

    tag = None if name.startswith(FOLDER_PREFIX) else pretrained
    # Where a name and its weights differ in their activation (ViT-B-16 and OpenAI's), open_clip only warns.
    quick_gelu = tag is not None and bool((open_clip.get_pretrained_cfg(name, tag) or {}).get("quick_gelu"))
    model, transform = open_clip.create_model_from_pretrained(
        name,
        pretrained=tag,
        precision=_PRECISIONS[precision],
        device=device,
        force_quick_gelu=quick_gelu,
    )
    return model.eval(), transform
