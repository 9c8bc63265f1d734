"""Open-set boxes: OWLv2 with the image's own tags as its classes.

Threshold, prompt prefix, NMS and cap are those of MG-LLaVA's box generation (bbox_generation/image_offline_to_bbox.py,
module/chat_utils.py), the published pipeline of the same tagger and detector; the paper states none of them.
"""

import numpy as np
from PIL import Image
from pydantic import Field

from experts.base import Expert, ModelExpertSection, Prior, bounded, finite, load_pretrained, torch_dtype
from experts.boxes import best_per_label, box_rows, clipped, suppress
from schemas.section import located
from schemas.tables import BOXES_PRIOR

# OWLv2's processor pads to a square in float32 before it shrinks: 2048 keeps that under 100 MB an image.
LONGEST_SIDE = 2048
LONGEST_ASPECT = 8.0


class OpenSetSection(ModelExpertSection):
    """Open-set detector."""

    model: str = located(
        "google/owlv2-large-patch14-ensemble", description="hub id (org/name) or local folder of an OWLv2 model"
    )
    prefix: str = Field("a photo of ", description="put before a tag to make the detector's query")
    threshold: float = Field(0.2, ge=0, le=1, description="a box needs a score above this")
    nms_iou: float = Field(
        0.2, ge=0, le=1, description="boxes of one label that overlap a better one more than this go"
    )
    cap_above: int = Field(100, ge=0, description="the per-label cap applies only when more boxes than this survive")
    cap_per_label: int = Field(20, ge=1, description="best boxes kept of each label when the cap applies")


class OpenSet(Expert):
    """OWLv2 zero-shot detection, queries from the tags."""

    name = "open_set"
    version = 1
    schema = BOXES_PRIOR
    needs = ("tags",)
    config: OpenSetSection

    def open(self, device: str) -> None:
        from transformers import Owlv2ForObjectDetection, Owlv2Processor

        self._processor, self._model = load_pretrained(
            self.name, self.config, Owlv2Processor, Owlv2ForObjectDetection, device
        )
        self._device = device
        self._queries: dict[str, object] = {}

    def look(self, images: list[Image.Image], context: list[dict[str, Prior]]) -> list[Prior]:
        import torch

        tags = [list(dict.fromkeys(tag["tag"] for tag in row["tags"]["tags"])) for row in context]
        seen = [bounded(image, LONGEST_SIDE, LONGEST_ASPECT) for image in images]
        with torch.inference_mode():
            self._embed({tag for row in tags for tag in row})
            pixels = self._processor.image_processor(images=seen, return_tensors="pt").pixel_values
            grid, _ = self._model.image_embedder(pixel_values=pixels.to(self._device, torch_dtype(self.config)))
            features = grid.flatten(1, 2)
            corners = finite(self._model.box_predictor(features, grid).float(), self.name).cpu().numpy()
            return [
                {"boxes": self._boxes(features[i : i + 1], corners[i], tags[i], image.size)}
                for i, image in enumerate(seen)
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
                max_length=self._context_length(),
                return_tensors="pt",
            )
            output = self._model.owlv2.get_text_features(
                input_ids=tokens.input_ids.to(self._device), attention_mask=tokens.attention_mask.to(self._device)
            )
            vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
            self._queries[tag] = (vectors / vectors.norm(dim=-1, keepdim=True))[0]

    def _context_length(self) -> int:
        return self._model.config.text_config.max_position_embeddings

    def _boxes(self, features: object, corners: np.ndarray, tags: list[str], size: tuple[int, int]) -> list[dict]:
        """Boxes of one image, best first.

        Args:
            features: (1, patches, width) of the vision tower.
            corners: (patches, 4) centre x, centre y, width, height; fractions of the padded square.
            tags: the image's queries.
            size: width and height of the picture inside the square, in any unit.
        """
        import torch

        if not tags:
            return []
        queries = torch.stack([self._queries[tag] for tag in tags])[None]
        logits, _ = self._model.class_predictor(features, queries)
        best = finite(logits[0].float(), self.name).sigmoid().max(dim=-1)
        scores, labels = best.values.cpu().numpy(), best.indices.cpu().numpy()

        # The picture lies in the upper left of a square as long as its longer side.
        width, height = size
        centre, half = corners[:, :2], corners[:, 2:] / 2
        square = np.concatenate([centre - half, centre + half], axis=1)
        boxes, inside = clipped(square * max(size) / np.array([width, height, width, height]))

        chosen = np.flatnonzero((scores > self.config.threshold) & inside)
        chosen = chosen[suppress(boxes[chosen], scores[chosen], labels[chosen], self.config.nms_iou)]
        if len(chosen) > self.config.cap_above:
            chosen = chosen[best_per_label(labels[chosen], self.config.cap_per_label)]
        return box_rows([tags[i] for i in labels[chosen]], scores[chosen], boxes[chosen])

    def close(self) -> None:
        self._model = self._processor = None
        self._queries = {}
