"""Tags: scores of labels, by one of several families of models.

The paper tags with RAM++ (DenseFusion, section 3.2.1); an open_clip model over a label list, or a multi-label
classifier, has the same seat: its tags are the classes of the open-set detector.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experts.base import Context, Expert, Pixels, Prior, bounded, finite, stacked, torch_dtype
from experts.taggers.base import Tagger, TagsSection
from experts.taggers.open_clip import OpenClipTagger
from experts.taggers.ram_plus import RamPlusTagger
from experts.taggers.timm import TimmTagger
from schemas.errors import RequestError
from schemas.tables import TAGS_PRIOR

FAMILIES: dict[str, type[Tagger]] = {"open_clip": OpenClipTagger, "timm": TimmTagger, "ram_plus": RamPlusTagger}
LONGEST_SIDE = 4096
LONGEST_ASPECT = 8.0


class Tags(Expert):
    """Stores the best labels down to a floor; those above the threshold are the tags."""

    name = "tags"
    version = 2
    schema = TAGS_PRIOR
    section = TagsSection
    about = "tags, of a list of labels or of the model's own"
    on = True
    config: TagsSection

    def __init__(self, config: TagsSection) -> None:
        super().__init__(config)
        self._tagger = FAMILIES[config.family](config)

    def models(self) -> dict[str, str]:
        identity = super().models()
        self._check_family()
        return identity | self._tagger.models()

    def _check_family(self) -> None:
        folder = Path(self.config.model)
        if not folder.is_dir() or (folder / self._tagger.config_file).is_file():
            return
        for name, family in FAMILIES.items():
            if (folder / family.config_file).is_file():
                raise RequestError(
                    f"perceive.tags.model: {folder} holds {family.config_file}, as models of family {name} do, and no "
                    f"{self._tagger.config_file}. Set perceive.tags.family to {name}, or give a folder of family "
                    f"{self.config.family}."
                )

    def open(self, device: str) -> None:
        self._tagger.open(device)
        self._device = device
        own = self._tagger.thresholds
        self._own: list[Any] = [None] * len(self._tagger.labels) if own is None else own.tolist()

    def least(self) -> tuple[int, int]:
        _, height, width = self._tagger.transform(Image.new("RGB", (8, 8))).shape
        return width, height

    def prepare(self, image: Image.Image) -> Pixels:
        return Pixels(self._tagger.transform(bounded(image, LONGEST_SIDE, LONGEST_ASPECT)), image.size)

    def look(self, prepared: list[Pixels], contexts: list[Context]) -> list[Prior]:
        import torch

        with torch.inference_mode():
            scores = self._tagger.scores(stacked(prepared, self._device, torch_dtype(self.config)))
        return [{"tags": self._best(row)} for row in finite(scores, self.name).cpu().numpy()]

    def _best(self, scores: np.ndarray) -> list[dict[str, Any]]:
        order = np.argsort(-scores, kind="stable")[: self.config.keep]
        best = order[scores[order] >= self.config.lowest].tolist()
        labels = self._tagger.labels
        return [{"tag": labels[i], "score": float(scores[i]), "threshold": self._own[i]} for i in best]

    def decide(self, measured: Prior, context: Context) -> Prior:
        tags = [tag for tag in measured["tags"] if tag["score"] > self._needed(tag)]
        return measured | {"tags": tags[: self.config.top_k]}

    def _needed(self, tag: dict[str, Any]) -> float:
        if tag["tag"] in self.config.tag_thresholds:
            return self.config.tag_thresholds[tag["tag"]]
        if self.config.threshold is not None:
            return self.config.threshold
        return self._tagger.threshold if tag["threshold"] is None else float(tag["threshold"])

    def close(self) -> None:
        self._tagger.close()
