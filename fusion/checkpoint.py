"""What a checkpoint tells of itself before anybody loads it."""

import json
from pathlib import Path

from fusion.engine import EngineSection


def takes_boxes(engine: EngineSection) -> bool:
    """Whether requests carry the boxes of their picture: the engine's model is a fusion model whose connector makes
    tokens of boxes, as its `processor_config.json` says.

    The file is read in the folder that `model` names; of a model on the Hub, where the Hub's files are kept once the
    server that we started has loaded it. An engine given by URL is known by a folder alone.
    """
    folder = Path(engine.model)
    file = folder / "processor_config.json" if folder.is_dir() else _kept(engine)
    if file is None or not file.is_file():
        return False
    told = json.loads(file.read_text(encoding="utf-8"))
    return told.get("processor_class") == "FusionProcessor" and bool(told["image_processor"]["takes_boxes"])


def _kept(engine: EngineSection) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    if engine.base_url is not None:
        return None
    file = try_to_load_from_cache(engine.model, "processor_config.json", revision=engine.revision)
    return Path(file) if isinstance(file, str) else None
