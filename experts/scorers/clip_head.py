"""Linear layers over an open_clip model's image embedding.

LAION's aesthetic predictors and its torch NSFW detector are such heads (sources in experts.scorers.base). All were
trained on embeddings of unit length; the heads give the score itself, as regressions of ratings from 1 to 10, or of 0
and 1.
"""

from typing import Any

from experts.base import compiled, loading
from experts.open_clip_model import load_open_clip, open_clip_identity, open_clip_name
from experts.scorers.base import Scorer
from experts.scorers.linear_head import linear_head


class ClipHeadScorer(Scorer):
    """The embedding in the section's precision, the head in float32."""

    def models(self) -> dict[str, str]:
        return {
            "model": open_clip_identity(self.config, self.config.pretrained),
            "weights": self.weights_identity(),
        }

    def open(self, device: str) -> None:
        config = self.config
        weights = self.read_weights()
        try:
            head = linear_head(weights, config.activation)
        except ValueError as error:
            raise self.refused(
                "weights",
                f"{config.weights} holds no head of linear layers: {error}",
                "Give a state dict of torch.nn.Linear layers, such as LAION's",
            ) from error
        if head.outputs != 1:
            raise self.refused(
                "weights", f"the head in {config.weights} gives {head.outputs} numbers", "Give one that gives the score"
            )
        with loading(self.expert, config):
            name = open_clip_name(config)
            self._model, self.transform = load_open_clip(name, device, config.precision, config.pretrained)
            width = self._width(device)
        if width != head.inputs:
            raise self.refused(
                "weights",
                f"the head in {config.weights} takes embeddings of {head.inputs} numbers, and {config.model} gives "
                f"{width}",
                f"Set perceive.{self.expert}.model to the model that the head was trained on",
            )
        self._encode = compiled(self._model.encode_image, config)
        self._head = head.layers.to(device)

    def _width(self, device: str) -> int:
        import torch
        from PIL import Image

        blank = self.transform(Image.new("RGB", (8, 8)))[None]
        dtype = getattr(torch, self.config.precision)
        with torch.inference_mode():
            return int(self._model.encode_image(blank.to(device, dtype)).shape[1])

    def scores(self, pixels: Any) -> Any:
        import torch

        score = self._head(torch.nn.functional.normalize(self._encode(pixels).float(), dim=-1))[:, 0]
        return score.sigmoid() if self.config.output == "sigmoid" else score

    def close(self) -> None:
        self._model = self._encode = self._head = None
