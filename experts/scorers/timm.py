"""A timm architecture with a file of its weights, whose classifier may be a stack of linear layers.

LAION's watermark detector is an EfficientNet-B3 with three linear layers for a classifier, saved as a state dict
(LAION-AI/LAION-5B-WatermarkDetection, example_use.py: squares of 256 px, softmax, class 0 is the watermark). Folders
that timm itself saves load as family transformers.
"""

from typing import Any

from experts.base import compiled, torch_dtype
from experts.scorers.base import ClassScorer, shortened
from experts.scorers.linear_head import LinearHead, linear_head


class TimmScorer(ClassScorer):
    """Softmax over the classes, a sigmoid where there is one; the classifier in float32."""

    def models(self) -> dict[str, str]:
        return {"model": f"timm:{self.config.model}", "weights": self.weights_identity()}

    def open(self, device: str) -> None:
        import timm
        from timm.data import create_transform, resolve_model_data_config

        config = self.config
        try:
            model = timm.create_model(config.model, pretrained=False, num_classes=0)
        except Exception as error:
            raise self.refused(
                "model",
                f"timm makes no {config.model}: {type(error).__name__}: {shortened(error)}",
                "Give one of the names that `python -c 'import timm; print(timm.list_models())'` lists",
            ) from error
        head = self._filled(model)
        self._class = self.class_number(head.outputs)
        form = resolve_model_data_config(model)
        if config.side is not None:
            size = {"input_size": (3, config.side, config.side), "interpolation": "bilinear"}
            form |= size | {"crop_pct": 1.0, "crop_mode": "squash"}
        self.transform = create_transform(**form, is_training=False)
        self._model = compiled(model.to(device, torch_dtype(config)).eval(), config)
        self._head = head.layers.to(device)

    def _filled(self, model: Any) -> LinearHead:
        """Put the file's weights into the model, all but those of the classifier; the classifier."""
        config = self.config
        weights = self.read_weights()
        try:
            before = f"{model.default_cfg['classifier']}."
            classifier = {name.removeprefix(before): v for name, v in weights.items() if name.startswith(before)}
            model.load_state_dict({name: v for name, v in weights.items() if not name.startswith(before)})
            return linear_head(classifier, config.activation)
        except (RuntimeError, ValueError) as error:
            raise self.refused(
                "weights",
                f"{config.weights} does not fill a {config.model} and a classifier of linear layers: "
                f"{shortened(error)}",
                f"Give a state dict of that architecture, or set perceive.{self.expert}.model to the file's own",
            ) from error

    def scores(self, pixels: Any) -> Any:
        logits = self._head(self._model(pixels).float())
        return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(-1))[:, self._class]

    def close(self) -> None:
        self._model = self._head = None
