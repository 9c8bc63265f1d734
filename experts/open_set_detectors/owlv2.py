"""OWLv2: every patch of the picture has a box, and a score for each text on its own."""

import math
from typing import Any

import numpy as np
from PIL import Image

from experts.base import Pixels, bounded, compiled, finite, load_pretrained, stacked, torch_dtype
from experts.boxes import corners
from experts.open_set_detectors.base import OpenDetector, Scored, above

# The processor pads to a square in float32 before it shrinks: 2048 keeps that under 100 MB an image.
LONGEST_SIDE = 2048
LONGEST_ASPECT = 8.0


class Owlv2Detector(OpenDetector):
    """An anchor is a patch, numbered row by row. Scores are sigmoids, one a query: what else is asked changes none."""

    model_types = ("owlv2",)

    def open(self, device: str) -> None:
        from transformers import Owlv2ForObjectDetection, Owlv2Processor

        self._processor, self._model = load_pretrained(
            "open_set", self.config, Owlv2Processor, Owlv2ForObjectDetection, device
        )
        self._tower = compiled(self._model.image_embedder, self.config)
        self._device = device
        self._queries: dict[str, Any] = {}

    def least(self) -> tuple[int, int]:
        """The longer side becomes that of the model's square; the shorter is never less than `bounded` leaves it."""
        side = self._processor.image_processor.size["width"]
        return side, math.ceil(side / LONGEST_ASPECT)

    def prepare(self, image: Image.Image) -> Pixels:
        seen = bounded(image, LONGEST_SIDE, LONGEST_ASPECT)
        values = self._processor.image_processor(images=seen, return_tensors="pt").pixel_values[0]
        # Boxes are fractions, so that only the shape of what the model sees matters.
        return Pixels(values, seen.size)

    def look(self, prepared: list[Pixels], tags: list[list[str]]) -> list[Scored]:
        import torch

        with torch.inference_mode():
            self._embed({tag for row in tags for tag in row})
            grid, _ = self._tower(pixel_values=stacked(prepared, self._device, torch_dtype(self.config)))
            features = grid.flatten(1, 2)
            boxes = finite(self._model.box_predictor(features, grid).float(), "open_set").cpu().numpy()
            return [
                self._scored(features[i : i + 1], in_picture(boxes[i], prepared[i].size), tags[i])
                for i in range(len(prepared))
            ]

    def _embed(self, tags: set[str]) -> None:
        """Text embeddings of tags not met before; a tag's queries are the same for every image."""
        import torch

        # One at a time: a batch's size may decide a last bit, and which tags are new depends on the shards before.
        for tag in sorted(tags - self._queries.keys()):
            tokens = self._processor.tokenizer(
                [f"{self.config.prefix}{tag.strip().lower()}"],
                padding="max_length",
                truncation=True,
                max_length=self._model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            )
            output = self._model.owlv2.get_text_features(
                input_ids=tokens.input_ids.to(self._device), attention_mask=tokens.attention_mask.to(self._device)
            )
            vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
            self._queries[tag] = (vectors / vectors.norm(dim=-1, keepdim=True))[0]

    def _scored(self, features: Any, boxes: np.ndarray, tags: list[str]) -> Scored:
        """What is seen of one picture.

        Args:
            features: (1, patches, width) of the vision tower.
            boxes: (patches, 4).
        """
        import torch

        if not tags:
            return Scored.nothing()
        queries = torch.stack([self._queries[tag] for tag in tags])[None]
        # Not batched over pictures: padding their queries to one number changes last bits.
        logits, _ = self._model.class_predictor(features, queries)
        patches, asked, scores = above(finite(logits[0].float(), "open_set").sigmoid(), self.config.floor)
        return Scored(asked, scores, boxes[patches], patches)

    def close(self) -> None:
        self._model = self._processor = self._tower = None
        self._queries = {}


def in_picture(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes as fractions of the picture.

    Args:
        boxes: (n, 4) centre x, centre y, width, height; fractions of a square as long as the picture's longer side, in
            whose upper left the picture lies.
        size: width and height of the picture, in any unit.
    """
    width, height = size
    return corners(boxes) * max(size) / np.array([width, height, width, height])
