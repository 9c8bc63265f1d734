"""Image classifiers of the transformers library, by its own processors."""

from typing import Any

from PIL import Image

from experts.base import compiled, load_pretrained
from experts.scorers.base import ClassScorer
from schemas.identity import model_identity


class TransformersScorer(ClassScorer):
    """The score that transformers' image-classification pipeline gives one class.

    That is a sigmoid for a model of one output or of problem_type multi_label_classification, else a softmax; but a
    model of problem_type regression gives its number as it is.
    """

    # Its classes go by numbers; 1 is the one that data-juicer's image_watermark_filter.py reads.
    known = {"amrul-hzz/watermark_detector": 1}  # noqa: RUF012  a ClassVar in the base

    def models(self) -> dict[str, str]:
        return {"model": model_identity(self.config)}

    def open(self, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        self._processor, model = load_pretrained(
            self.expert, self.config, AutoImageProcessor, AutoModelForImageClassification, device
        )
        own = model.config
        self._class = self.class_number([own.id2label[i] for i in range(own.num_labels)])
        self._activation = _activation(own.problem_type, own.num_labels)
        self._model = compiled(model, self.config)

    def transform(self, image: Image.Image) -> Any:
        return self._processor(images=image, return_tensors="pt").pixel_values[0]

    def scores(self, pixels: Any) -> Any:
        logits = self._model(pixel_values=pixels).logits.float()
        if self._activation == "softmax":
            logits = logits.softmax(-1)
        elif self._activation == "sigmoid":
            logits = logits.sigmoid()
        return logits[:, self._class]

    def close(self) -> None:
        self._model = self._processor = None


def _activation(problem_type: str | None, labels: int) -> str:
    if problem_type == "regression":
        return "none"
    return "sigmoid" if problem_type == "multi_label_classification" or labels == 1 else "softmax"
