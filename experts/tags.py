"""Tags: open_clip zero-shot classification over a list of labels.

The paper tags with RAM++ (DenseFusion, section 3.2.1), whose code and weights have no maintained package; an
open_clip model over a label list has the same seat: its tags are the classes of the open-set detector.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from experts.base import Expert, ModelExpertSection, Prior, bounded, finite, loading, torch_dtype
from experts.open_clip_model import load_open_clip, open_clip_name
from schemas.errors import RequestError
from schemas.section import located
from schemas.tables import TAGS_PRIOR

DEFAULT_LABELS = Path(__file__).parent / "data" / "labels.txt"
LONGEST_SIDE = 4096
LONGEST_ASPECT = 8.0


class TagsSection(ModelExpertSection):
    """Zero-shot tags."""

    model: str = located(
        "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", description="hub id (org/name) or local folder of an open_clip model"
    )
    labels: tuple[str, ...] | str | None = located(
        None, description="the labels, or a text file with one a line; null takes the list of everyday nouns we ship"
    )
    template: str = Field("a photo of {}", description="text that stands for a label; {} is the label")
    score: Literal["probability", "cosine"] = Field(
        "probability", description="softmax over all labels at the model's own temperature, or the plain cosine"
    )
    threshold: float = Field(0.01, ge=0, le=1, description="lowest score that makes a tag")
    top_k: int = Field(20, ge=1, le=1000, description="most tags an image gets")


class Tags(Expert):
    """Image against label embeddings; the best labels are the tags."""

    name = "tags"
    version = 1
    schema = TAGS_PRIOR
    config: TagsSection

    def labels(self) -> list[str]:
        """The labels in order, stripped, each once. Raises RequestError."""
        given = self.config.labels
        if isinstance(given, tuple):
            lines = list(given)
        else:
            path = Path(given) if given else DEFAULT_LABELS
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise RequestError(
                    f"perceive.tags.labels: {path} cannot be read as UTF-8 text ({error}). "
                    "Give a text file with one label a line, or the labels themselves."
                ) from error
        labels = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if not labels:
            raise RequestError("perceive.tags.labels holds no label. Give at least one, or null for our own list.")
        return labels

    def models(self) -> dict[str, str]:
        listed = "\n".join(self.labels()).encode()
        return super().models() | {"labels": f"sha256:{hashlib.sha256(listed).hexdigest()}"}

    def open(self, device: str) -> None:
        import open_clip
        import torch

        self._labels = self.labels()
        with loading(self.name, self.config):
            name = open_clip_name(self.config)
            self._model, self._transform = load_open_clip(name, device, self.config.precision)
            tokens = open_clip.get_tokenizer(name)([self.config.template.format(label) for label in self._labels])
            with torch.inference_mode():
                chunks = [self._model.encode_text(part.to(device), normalize=True) for part in tokens.split(256)]
        self._text = torch.cat(chunks).float()
        self._device = device

    def look(self, images: list[Image.Image], context: list[dict[str, Prior]]) -> list[Prior]:
        import torch

        pixels = torch.stack([self._transform(bounded(image, LONGEST_SIDE, LONGEST_ASPECT)) for image in images])
        with torch.inference_mode():
            pixels = pixels.to(self._device, torch_dtype(self.config))
            cosine = self._model.encode_image(pixels, normalize=True).float() @ self._text.T
            if self.config.score == "probability":
                scores = (cosine * self._model.logit_scale.exp().float()).softmax(dim=-1)
            else:
                scores = cosine
        return [{"tags": self._best(row)} for row in finite(scores, self.name).cpu().numpy()]

    def _best(self, scores: np.ndarray) -> list[dict[str, Any]]:
        order = np.argsort(-scores, kind="stable")[: self.config.top_k]
        return [
            {"tag": self._labels[i], "score": float(scores[i])} for i in order if scores[i] >= self.config.threshold
        ]

    def close(self) -> None:
        self._model = self._text = None
