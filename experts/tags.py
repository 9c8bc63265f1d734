"""Tags: the best labels of an image, by one of several families of models.

The paper tags with RAM++ (DenseFusion, section 3.2.1), whose code and weights have no maintained package; an
open_clip model over a label list, or a multi-label classifier, has the same seat: its tags are the classes of the
open-set detector.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from experts.base import Expert, Prior, bounded, finite, torch_dtype
from experts.tagger import Tagger, TagsSection
from experts.tags_open_clip import OpenClipTagger
from experts.tags_timm import TimmTagger
from schemas.errors import RequestError
from schemas.tables import TAGS_PRIOR

FAMILIES: dict[str, type[Tagger]] = {"open_clip": OpenClipTagger, "timm": TimmTagger}
LONGEST_SIDE = 4096
LONGEST_ASPECT = 8.0


class Tags(Expert):
    """Scores of labels; the best that reach the threshold are the tags."""

    name = "tags"
    version = 1
    schema = TAGS_PRIOR
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
        given = self.config.threshold
        lowest = self._tagger.thresholds if given is None else given
        self._lowest = np.broadcast_to(np.asarray(lowest, np.float32), len(self._tagger.labels))
        self._device = device

    def look(self, images: list[Image.Image], context: list[dict[str, Prior]]) -> list[Prior]:
        import torch

        small = [bounded(image, LONGEST_SIDE, LONGEST_ASPECT) for image in images]
        pixels = torch.stack([self._tagger.transform(image) for image in small])
        with torch.inference_mode():
            scores = self._tagger.scores(pixels.to(self._device, torch_dtype(self.config)))
        return [{"tags": self._best(row)} for row in finite(scores, self.name).cpu().numpy()]

    def _best(self, scores: np.ndarray) -> list[dict[str, str | float]]:
        order = np.argsort(-scores, kind="stable")
        best = order[scores[order] >= self._lowest[order]][: self.config.top_k]
        return [{"tag": self._tagger.labels[i], "score": float(scores[i])} for i in best]

    def close(self) -> None:
        self._tagger.close()
