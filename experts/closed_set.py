"""Closed-set boxes, by one of several families: a detector with labels of its own, or a file of boxes.

The paper runs EVA-02 detectors trained on LVIS and COCO (DenseFusion, section 3.2.1), which need a detectron2 fork and
come in by file; RT-DETRv2, D-FINE and their like stand in for them and load natively. The paper states neither a
threshold nor a cap; 0.5 is the default of transformers' post-processing, 100 what COCO's evaluation takes of an image.
"""

from collections.abc import Hashable
from typing import Any

from PIL import Image

from experts.base import Context, Expert, Prior
from experts.boxes import scores_of
from experts.closed_set_detectors.base import ClosedDetector, ClosedSetSection
from experts.closed_set_detectors.detr import DetrDetector
from experts.closed_set_detectors.file import FileDetector
from schemas.tables import BOXES_PRIOR

FAMILIES: dict[str, type[ClosedDetector]] = {"detr": DetrDetector, "file": FileDetector}


class ClosedSet(Expert):
    """Stores boxes down to a floor; those above the threshold are kept, best first. Such models need no NMS."""

    name = "closed_set"
    version = 2
    schema = BOXES_PRIOR
    section = ClosedSetSection
    about = "boxes of the labels that a detector knows"
    on = True
    config: ClosedSetSection

    def __init__(self, config: ClosedSetSection) -> None:
        super().__init__(config)
        self._detector = FAMILIES[config.family](config)

    def models(self) -> dict[str, str]:
        return self._detector.models()

    def open(self, device: str) -> None:
        self._detector.open(device)

    def least(self) -> tuple[int, int] | None:
        return self._detector.least()

    def prepare(self, image: Image.Image) -> Any:
        return self._detector.prepare(image)

    def bucket(self, prepared: Any) -> Hashable:
        return self._detector.bucket(prepared)

    def look(self, prepared: list[Any], contexts: list[Context]) -> list[Any]:
        return self._detector.look(prepared, contexts)

    def finish(self, looked: Any) -> Prior:
        return {"boxes": self._detector.finish(looked)}

    def decide(self, measured: Prior, context: Context) -> Prior:
        above = scores_of(measured["boxes"]) > self.config.threshold
        boxes = [row for row, kept in zip(measured["boxes"], above.tolist(), strict=True) if kept]
        return measured | {"boxes": boxes[: self.config.max_boxes]}

    def close(self) -> None:
        self._detector.close()
