"""Each expert beside its library: settings, the bare loop, and how the two answers compare."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from benchmarks.experts.full_size import full_size
from demo.shapes import CATEGORIES
from demo.weights import TRAINED
from experts.florence import plain

TAGS = [{"tag": name, "score": 0.9, "threshold": None} for name in CATEGORIES]
"""What every picture's open-set classes are."""

Answers = list[Any]


class Bare(ABC):
    """A model as its own library runs it, over pictures that were prepared before the clock starts.

    Attributes:
        expert: name of the expert that it is held against.
        settings: of the expert's section, without the model's place, device and precision.
        batch: pictures in one call of either side.
    """

    expert: ClassVar[str]
    family: ClassVar[str]
    settings: ClassVar[dict[str, Any]] = {}
    batch: ClassVar[int] = 4

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        import torch

        self.device, self.dtype = device, getattr(torch, precision)
        self.load(folder)

    @classmethod
    def place(cls, folder: Path, full: bool) -> Path:
        """The model's folder, of full-size input or the demo's own."""
        return full_size(cls.family, folder) if full else TRAINED / cls.family

    @abstractmethod
    def load(self, folder: Path) -> None: ...

    @abstractmethod
    def prepared(self, images: Sequence[Image.Image]) -> list[Any]:
        """What `run` takes of each picture, by the library's own processor; tensors where the model is."""

    @abstractmethod
    def run(self, batch: Any) -> Answers:
        """What the library gives for each picture of a collated batch, on the CPU."""

    def collated(self, prepared: list[Any]) -> Any:
        import torch

        return torch.stack(prepared)

    @abstractmethod
    def same(self, row: dict[str, Any], answer: Any) -> bool:
        """Whether the stage's measured row says what the bare loop's answer says."""


class BareTags(Bare):
    """timm's classifier and its sigmoid."""

    expert, family, batch = "tags", "tagger", 8
    settings: ClassVar[dict[str, Any]] = {"family": "timm"}

    def load(self, folder: Path) -> None:
        import timm
        from timm.data import create_transform, resolve_model_data_config

        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        self._transform = create_transform(**resolve_model_data_config(model), is_training=False)
        self._model = model.to(self.device, self.dtype).eval()

    def prepared(self, images: Sequence[Image.Image]) -> list[Any]:
        return [self._transform(image).to(self.device, self.dtype) for image in images]

    def run(self, batch: Any) -> Answers:
        return list(self._model(batch).float().sigmoid().cpu().numpy())

    def same(self, row: dict[str, Any], answer: Any) -> bool:
        return abs(row["tags"][0]["score"] - answer.max()) < 0.02


class _Transformers(Bare):
    """Model and processor by `from_pretrained`."""

    model: ClassVar[str]
    processor: ClassVar[str] = "AutoImageProcessor"

    def load(self, folder: Path) -> None:
        import transformers

        self._model = getattr(transformers, self.model).from_pretrained(folder, dtype=self.dtype).to(self.device).eval()
        self._processor = getattr(transformers, self.processor).from_pretrained(folder)
        self._images = getattr(self._processor, "image_processor", self._processor)

    def prepared(self, images: Sequence[Image.Image]) -> list[Any]:
        ready = [self._images(images=image, return_tensors="pt").pixel_values[0] for image in images]
        return [one.to(self.device, self.dtype) for one in ready]


class BareClosedSet(_Transformers):
    """The model and the library's own post-processing."""

    expert, family, model = "closed_set", "detector", "AutoModelForObjectDetection"

    def run(self, batch: Any) -> Answers:
        outputs = self._model(pixel_values=batch)
        found = self._processor.post_process_object_detection(
            outputs, threshold=0.05, target_sizes=[(1, 1)] * len(batch)
        )
        return [one["scores"].float().cpu().numpy() for one in found]

    def same(self, row: dict[str, Any], answer: Any) -> bool:
        best = max((box["score"] for box in row["boxes"]), default=0.0)
        return abs(best - answer.max(initial=0.0)) < 0.02


class BareOpenSet(_Transformers):
    """OWLv2's tower and heads over queries that were embedded before."""

    expert, family, model, processor = "open_set", "owlv2", "Owlv2ForObjectDetection", "Owlv2Processor"
    settings: ClassVar[dict[str, Any]] = {"floor": 0.05}
    batch = 2

    def load(self, folder: Path) -> None:
        import torch

        super().load(folder)
        length = self._model.config.text_config.max_position_embeddings
        tokens = self._processor.tokenizer(
            [f"a photo of {tag['tag']}" for tag in TAGS], padding="max_length", max_length=length, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            features = self._model.owlv2.get_text_features(**tokens)
            self._queries = torch.nn.functional.normalize(getattr(features, "pooler_output", features), dim=-1)

    def run(self, batch: Any) -> Answers:
        grid, _ = self._model.image_embedder(pixel_values=batch)
        features = grid.flatten(1, 2)
        self._model.box_predictor(features, grid).cpu()
        logits, _ = self._model.class_predictor(features, self._queries.expand(len(batch), -1, -1))
        return list(logits.float().sigmoid().amax(dim=(1, 2)).cpu().numpy())

    def same(self, row: dict[str, Any], answer: Any) -> bool:
        # A best box that lies outside of the picture is not stored.
        return not row["boxes"] or row["boxes"][0]["score"] < answer + 0.02


class BareDepth(_Transformers):
    """The model alone, without scaling and storing its map."""

    expert, family, model = "depth", "depth", "AutoModelForDepthEstimation"

    def run(self, batch: Any) -> Answers:
        return list(self._model(pixel_values=batch).predicted_depth.float().cpu().numpy())

    def same(self, row: dict[str, Any], answer: Any) -> bool:
        # The stored map is scaled down, which takes its extremes off.
        return bool(answer.min() - 1e-2 <= row["disparity_min"] <= row["disparity_max"] <= answer.max() + 1e-2)


class BareFlorence(_Transformers):
    """The library's `generate`, which runs the image tower for every prompt anew."""

    expert, family = "florence", "florence"
    model, processor = "Florence2ForConditionalGeneration", "AutoProcessor"
    settings: ClassVar[dict[str, Any]] = {"text": False, "max_new_tokens": 32, "beams": 1}
    batch = 2

    def run(self, batch: Any) -> Answers:
        answers = []
        for task in ("<MORE_DETAILED_CAPTION>", "<DENSE_REGION_CAPTION>"):
            inputs = self._processor(text=[task] * len(batch), images=[_GREY] * len(batch), return_tensors="pt")
            ids = self._model.generate(
                input_ids=inputs["input_ids"].to(self.device),
                attention_mask=inputs["attention_mask"].to(self.device),
                pixel_values=batch,
                max_new_tokens=32,
                num_beams=1,
                do_sample=False,
            )
            answers.append(self._processor.batch_decode(ids, skip_special_tokens=True))
        return answers[0]

    def same(self, row: dict[str, Any], answer: Any) -> bool:
        return bool(row["caption"] == plain(answer))


class BareOcr(Bare):
    """RapidOCR as one calls it, over decoded pictures."""

    expert = "ocr"

    @classmethod
    def place(cls, folder: Path, full: bool) -> Path:
        spec = importlib.util.find_spec("rapidocr")
        assert spec is not None and spec.origin is not None
        return Path(spec.origin).parent

    def load(self, folder: Path) -> None:
        from rapidocr import RapidOCR

        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        self._engine = RapidOCR(params={"Global.log_level": "error", "Global.text_score": 0.0, **threads})

    def prepared(self, images: Sequence[Image.Image]) -> list[Any]:
        return [np.asarray(image)[:, :, ::-1] for image in images]

    def collated(self, prepared: list[Any]) -> Any:
        return prepared

    def run(self, batch: Any) -> Answers:
        return [list(self._engine(picture).txts or ()) for picture in batch]

    def same(self, row: dict[str, Any], answer: Any) -> bool:
        return abs(len(row["lines"]) - len(answer)) <= max(2, len(answer) // 4)


_GREY = Image.new("RGB", (8, 8), (128, 128, 128))

CASES: dict[str, type[Bare]] = {
    case.expert: case for case in (BareTags, BareOpenSet, BareClosedSet, BareOcr, BareDepth, BareFlorence)
}
