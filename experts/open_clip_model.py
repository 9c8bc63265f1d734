"""Loads an open_clip model from the hub at a revision, or from a folder."""

from pathlib import Path
from typing import Any

from schemas.section import ModelRef


def open_clip_folder(ref: ModelRef) -> Path:
    """Folder that holds `open_clip_config.json`, weights and tokenizer; fetched or found in the hub's cache.

    open_clip's own hub loader takes no revision, so the hub client fetches and open_clip loads the folder.
    """
    if Path(ref.model).is_dir():
        return Path(ref.model)
    from huggingface_hub import snapshot_download

    def fetch(*weights: str) -> Path:
        kinds = ["*.json", "*.txt", "*.model", *weights]
        return Path(snapshot_download(ref.model, revision=ref.revision, allow_patterns=kinds))

    folder = fetch("open_clip_model.safetensors")
    return folder if any(folder.glob("*.safetensors")) else fetch("open_clip_pytorch_model.bin")


def load_open_clip(ref: ModelRef, device: str, precision: str) -> tuple[Any, Any, Any]:
    """(model in eval mode, transform from PIL image to tensor (3, h, w), tokenizer of list[str] to ids (n, context)).

    Args:
        precision: float32, bfloat16 or float16.

    Raises:
        Whatever the hub client or open_clip raise.
    """
    import open_clip

    name = f"local-dir:{open_clip_folder(ref)}"
    kind = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[precision]
    model, _, transform = open_clip.create_model_and_transforms(
        name, precision=kind, device=device, require_pretrained=True
    )
    return model.eval(), transform, open_clip.get_tokenizer(name)
