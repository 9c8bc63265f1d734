"""Detectors of the DETR family: any model that transformers' AutoModelForObjectDetection loads and whose processor has
`post_process_object_detection` over `logits` and `pred_boxes`."""

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from experts.base import Context, Prior, compiled, finite, load_pretrained, torch_dtype
from experts.boxes import corners, measured_rows
from experts.closed_set_detectors.base import ClosedDetector
from experts.detr_pixels import MaskedPixels, batched, least_side, masked_pixels
from schemas.identity import model_identity


class DetrDetector(ClosedDetector):
    """An anchor is a query of the decoder. Which pairs of query and label count is each processor's own rule."""

    def models(self) -> dict[str, str]:
        return {"model": model_identity(self.config)}

    def open(self, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        self._processor, self._model = load_pretrained(
            "closed_set", self.config, AutoImageProcessor, AutoModelForObjectDetection, device
        )
        self._forward = compiled(self._model, self.config)
        self._device = device
        # Deformable and Conditional DETR's processors cut to 100 where nothing is said.
        rule = inspect.signature(self._processor.post_process_object_detection).parameters
        self._options = {"top_k": self.config.keep} if "top_k" in rule else {}

    def least(self) -> tuple[int, int] | None:
        return least_side(self._processor)

    def prepare(self, image: Image.Image) -> MaskedPixels:
        return masked_pixels(self._processor, image)

    def bucket(self, prepared: MaskedPixels) -> tuple[int, ...]:
        return tuple(prepared.values.shape)

    def look(self, prepared: list[MaskedPixels], contexts: list[Context]) -> list["_Found"]:
        import torch

        with torch.inference_mode():
            outputs = self._forward(**batched(prepared, self._device, torch_dtype(self.config)))
            finite(outputs.logits, "closed_set")
            boxes = finite(outputs.pred_boxes, "closed_set").float().cpu().numpy()
            found = numbered(self._processor, outputs, self.config.floor, **self._options)
        return [_Found(*one, boxes[i]) for i, one in enumerate(found)]

    def finish(self, looked: "_Found") -> list[Prior]:
        known, places = np.unique(looked.labels, return_inverse=True)
        names = [self._model.config.id2label[label] for label in known.tolist()]
        boxes = corners(looked.boxes[looked.queries])
        return measured_rows(names, places, looked.scores, boxes, looked.queries, self.config.keep)

    def close(self) -> None:
        self._model = self._processor = self._forward = None


@dataclass(frozen=True)
class _Found:
    """Of one picture: labels, scores and queries (n,), and the boxes of all queries, centre x, centre y, width, height,
    fractions of the picture."""

    labels: np.ndarray
    scores: np.ndarray
    queries: np.ndarray
    boxes: np.ndarray


def numbered(
    processor: Any, outputs: Any, threshold: float, **options: Any
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(labels, scores, queries), each (n,), of each picture: what the processor's own rule lets above the threshold.

    The rule says which box it took but not of which query. So it is given boxes that state their number, in place of
    the model's, which are lost from `outputs`.
    """
    import torch

    count, queries = outputs.logits.shape[:2]
    numbers = torch.zeros(count, queries, 4, device=outputs.logits.device)
    numbers[..., 0] = torch.arange(queries, device=numbers.device)
    outputs.pred_boxes = numbers
    found = processor.post_process_object_detection(
        outputs, threshold=threshold, target_sizes=[(1, 1)] * count, **options
    )
    return [
        (
            one["labels"].cpu().numpy(),
            one["scores"].float().cpu().numpy(),
            one["boxes"][:, 0].round().long().cpu().numpy(),
        )
        for one in found
    ]
