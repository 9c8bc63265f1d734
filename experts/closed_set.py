"""Closed-set boxes: a transformers detector of the DETR family with its own labels.

The paper runs EVA-02 detectors trained on LVIS and COCO (DenseFusion, section 3.2.1), which need a detectron2
fork; RT-DETRv2 and D-FINE stand in for them and load natively.
"""

from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field

from experts.base import Expert, ModelExpertSection, Prior, bounded, finite, load_pretrained, torch_dtype
from experts.boxes import box_rows, clipped
from schemas.section import located
from schemas.tables import BOXES_PRIOR

LONGEST_SIDE = 4096
LONGEST_ASPECT = 8.0


class ClosedSetSection(ModelExpertSection):
    """Closed-set detector."""

    model: str = located(
        "PekingU/rtdetr_v2_r101vd", description="hub id (org/name) or local folder of an object detection model"
    )
    # float16 is left out: RT-DETRv2 cast to it answers with finite but wrong scores, and so with no boxes.
    precision: Literal["float32", "bfloat16"] = Field("float32", description="arithmetic of the model")
    threshold: float = Field(0.5, ge=0, le=1, description="a box needs a score above this")
    max_boxes: int = Field(100, ge=1, le=1000, description="best boxes kept of an image")


class ClosedSet(Expert):
    """Object detection with the model's own label names; such models need no NMS."""

    name = "closed_set"
    version = 1
    schema = BOXES_PRIOR
    config: ClosedSetSection

    def open(self, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        self._processor, self._model = load_pretrained(
            self.name, self.config, AutoImageProcessor, AutoModelForObjectDetection, device
        )
        self._device = device

    def look(self, images: list[Image.Image], context: list[dict[str, Prior]]) -> list[Prior]:
        import torch

        seen = [bounded(image, LONGEST_SIDE, LONGEST_ASPECT) for image in images]
        inputs = self._processor(images=seen, return_tensors="pt").to(self._device)
        inputs["pixel_values"] = inputs["pixel_values"].to(torch_dtype(self.config))
        with torch.inference_mode():
            outputs = self._model(**inputs)
        finite(outputs.logits, self.name)
        finite(outputs.pred_boxes, self.name)
        found = self._processor.post_process_object_detection(
            outputs, threshold=self.config.threshold, target_sizes=[(1, 1)] * len(seen)
        )
        return [{"boxes": self._boxes(one)} for one in found]

    def _boxes(self, found: dict) -> list[dict]:
        scores = found["scores"].float().cpu().numpy()
        labels = found["labels"].cpu().numpy()
        boxes, inside = clipped(found["boxes"].float().cpu().numpy().reshape(-1, 4))
        order = np.argsort(-scores, kind="stable")
        order = order[inside[order]][: self.config.max_boxes]
        names = [self._model.config.id2label[int(labels[i])] for i in order]
        return box_rows(names, scores[order], boxes[order])

    def close(self) -> None:
        self._model = self._processor = None
