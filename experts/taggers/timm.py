"""Tags of a multi-label timm classifier, which knows its own labels.

The folder is what `timm.models.save_for_hf` writes. The image taggers of the WD line leave `label_names` out of
config.json and lay selected_tags.csv beside it, one row a class, with columns name and category.
"""

import csv
import json
from pathlib import Path
from typing import Any

from experts.base import compiled, loading, torch_dtype
from experts.taggers.base import Tagger
from schemas.errors import RequestError

TAGS_FILE = "selected_tags.csv"
RATING = "9"


class TimmTagger(Tagger):
    """Sigmoid of every class; inputs as the folder's `pretrained_cfg` says."""

    config_file = "config.json"
    # Of the WD taggers' own example (neggles/wdv3-timm, general tags).
    threshold = 0.35

    def models(self) -> dict[str, str]:
        """Nothing: the labels lie with the weights. Of a local folder they are looked at before anything starts."""
        folder = Path(self.config.model)
        if folder.is_dir():
            classes(folder)
        return {}

    def open(self, device: str) -> None:
        import timm
        from timm.data import create_transform, resolve_model_data_config

        with loading("tags", self.config):
            folder = self._folder()
        names = classes(folder)
        with loading("tags", self.config):
            model = timm.create_model(f"local-dir:{folder}", pretrained=True)
            # timm leaves the head random, and says nothing, where config.json counts its classes in two ways.
            if model.num_classes != len(names):
                raise ValueError(f"the model has {model.num_classes} classes and config.json {len(names)}")
            self.transform = create_transform(**resolve_model_data_config(model), is_training=False)
        self._model = compiled(model.to(device, torch_dtype(self.config)).eval(), self.config)
        self._kept = [i for i, name in enumerate(names) if name is not None]
        self.labels = [name for name in names if name is not None]

    def _folder(self) -> Path:
        """The local folder, or the hub's files in its cache, all of one revision."""
        if Path(self.config.model).is_dir():
            return Path(self.config.model)
        from huggingface_hub import snapshot_download

        files = [self.config_file, TAGS_FILE, "model.safetensors"]
        return Path(snapshot_download(self.config.model, revision=self.config.revision, allow_patterns=files))

    def scores(self, pixels: Any) -> Any:
        logits = self._model(pixels if self.config.channels == "rgb" else pixels.flip(1))
        return logits[:, self._kept].float().sigmoid()

    def close(self) -> None:
        self._model = None


def classes(folder: Path) -> list[str | None]:
    """The name of every class, in order; None for a rating (category 9 of selected_tags.csv), which tags nothing.

    Raises:
        RequestError: config.json is no timm model's, or the names are missing or not as many as the classes.
    """
    try:
        config = json.loads((folder / TimmTagger.config_file).read_text(encoding="utf-8"))
        inner = config.get("pretrained_cfg", {})
        count = config.get("num_classes", inner.get("num_classes"))
        given = config.get("label_names", inner.get("label_names"))
    except (OSError, ValueError, AttributeError) as error:
        raise _refused(folder, f"its config.json cannot be read ({error})") from error
    if "architecture" not in config:
        raise _refused(folder, "its config.json names no timm architecture")
    names: list[str | None]
    if isinstance(given, dict):
        names = [given.get(str(i)) for i in range(len(given))]
        if None in names:
            raise _refused(folder, "its label_names leave out a class")
    elif given:
        names = list(given)
    elif (folder / TAGS_FILE).is_file():
        names = _tag_rows(folder)
    else:
        raise _refused(folder, f"its config.json has no label_names, and there is no {TAGS_FILE}")
    if len(names) != count:
        raise _refused(folder, f"it names {len(names)} labels, and config.json has num_classes {count}")
    return names


def _tag_rows(folder: Path) -> list[str | None]:
    try:
        with (folder / TAGS_FILE).open(encoding="utf-8", newline="") as f:
            return [None if row.get("category") == RATING else row["name"] for row in csv.DictReader(f)]
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise _refused(folder, f"its {TAGS_FILE} is not UTF-8 CSV with a column name ({error!r})") from error


def _refused(folder: Path, why: str) -> RequestError:
    return RequestError(
        f"perceive.tags.model: {folder} is no tagger of family timm: {why}. Give a folder that timm saved, with one "
        "name for every class in order."
    )
