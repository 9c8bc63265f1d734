"""Scores of a picture: one number by one of several families of models, measured on all that `dedup` left.

`select` decides by them, so another limit there runs no model again.
"""

from collections.abc import Hashable
from typing import ClassVar

from PIL import Image

from experts.base import Context, Expert, Pixels, Prior, bounded, finite, stacked, torch_dtype
from experts.scorers.base import Scorer, ScoreSection
from experts.scorers.clip_head import ClipHeadScorer
from experts.scorers.timm import TimmScorer
from experts.scorers.transformers import TransformersScorer
from schemas.tables import SCORE_PRIOR

FAMILIES: dict[str, type[Scorer]] = {
    "clip_head": ClipHeadScorer,
    "transformers": TransformersScorer,
    "timm": TimmScorer,
}
LONGEST_SIDE = 4096
LONGEST_ASPECT = 8


class ScoreExpert(Expert):
    """Looks at the rows of `dedup`.

    Attributes:
        probability: whether the score is one, and what a head gives is cut to 0..1.
    """

    schema = SCORE_PRIOR
    rows_from = "dedup"
    probability: ClassVar[bool] = True
    config: ScoreSection

    def __init__(self, config: ScoreSection) -> None:
        super().__init__(config)
        self._scorer = FAMILIES[config.family](self.name, config)

    def models(self) -> dict[str, str]:
        return self._scorer.models()

    def open(self, device: str) -> None:
        self._scorer.open(device)
        self._device = device

    def least(self) -> tuple[int, int]:
        _, height, width = self._scorer.transform(Image.new("RGB", (8, 8))).shape
        return width, height

    def prepare(self, image: Image.Image) -> Pixels:
        return Pixels(self._scorer.transform(_no_strip(image)), image.size)

    def bucket(self, prepared: Pixels) -> Hashable:
        return tuple(prepared.values.shape)

    def look(self, prepared: list[Pixels], contexts: list[Context]) -> list[Prior]:
        """`score` of each, float. Raises FloatingPointError where one is not finite."""
        import torch

        with torch.inference_mode():
            scores = finite(self._scorer.scores(stacked(prepared, self._device, torch_dtype(self.config))), self.name)
        if self.probability:
            scores = scores.clamp(0.0, 1.0)
        return [{"score": score} for score in scores.cpu().tolist()]

    def close(self) -> None:
        self._scorer.close()


def _no_strip(image: Image.Image) -> Image.Image:
    """The image itself, so that an ordinary one is resized by the library alone; a strip is squeezed first."""
    ordinary = max(image.size) <= LONGEST_ASPECT * min(image.size)
    return image if ordinary else bounded(image, LONGEST_SIDE, LONGEST_ASPECT)
