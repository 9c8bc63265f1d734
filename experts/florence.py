"""Florence-2: a long caption, text with regions, and region captions, through transformers' native classes."""

import re
from typing import Any

from PIL import Image
from pydantic import Field

from experts.base import Expert, ModelExpertSection, Prior, bounded, load_pretrained, torch_dtype
from schemas.section import located
from schemas.tables import FLORENCE_PRIOR

CAPTION = "<MORE_DETAILED_CAPTION>"
TEXT = "<OCR_WITH_REGION>"
REGIONS = "<DENSE_REGION_CAPTION>"

# Florence-2 writes coordinates as 1000 bins a side; asked for an image of 1000 x 1000, its parser gives the bins back.
BINS = 1000
LOCATION = re.compile(r"<?loc_\d+>")
LONGEST_SIDE = 4096
LONGEST_ASPECT = 8.0


class FlorenceSection(ModelExpertSection):
    """Florence-2."""

    model: str = located(
        "florence-community/Florence-2-large-ft", description="hub id (org/name) or local folder of a Florence-2 model"
    )
    max_new_tokens: int = Field(1024, ge=1, le=4096, description="longest answer to one prompt")
    beams: int = Field(3, ge=1, le=16, description="beam search width; 1 is greedy")
    caption: bool = Field(True, description="ask for the long caption")
    text: bool = Field(True, description="ask for the text with its regions")
    regions: bool = Field(True, description="ask for captions of regions")


class Florence(Expert):
    """Three prompts an image; coordinates are the centres of the model's bins."""

    name = "florence"
    version = 1
    schema = FLORENCE_PRIOR
    config: FlorenceSection

    def open(self, device: str) -> None:
        from transformers import AutoProcessor, Florence2ForConditionalGeneration

        self._processor, self._model = load_pretrained(
            self.name, self.config, AutoProcessor, Florence2ForConditionalGeneration, device
        )
        self._device = device

    def look(self, images: list[Image.Image], context: list[dict[str, Prior]]) -> list[Prior]:
        seen = [bounded(image, LONGEST_SIDE, LONGEST_ASPECT) for image in images]
        captions = self._answers(CAPTION, seen) if self.config.caption else [None] * len(seen)
        texts = self._answers(TEXT, seen) if self.config.text else [None] * len(seen)
        regions = self._answers(REGIONS, seen) if self.config.regions else [None] * len(seen)
        return [
            {
                "caption": plain(self._parsed(caption, CAPTION)) if caption is not None else None,
                "lines": text_lines(self._parsed(text, TEXT)) if text is not None else [],
                "regions": region_boxes(self._parsed(region, REGIONS)) if region is not None else [],
            }
            for caption, text, region in zip(captions, texts, regions, strict=True)
        ]

    def _answers(self, task: str, images: list[Image.Image]) -> list[str]:
        import torch

        inputs = self._processor(text=[task] * len(images), images=images, return_tensors="pt").to(self._device)
        inputs["pixel_values"] = inputs["pixel_values"].to(torch_dtype(self.config))
        with torch.inference_mode():
            ids = self._model.generate(
                **inputs, max_new_tokens=self.config.max_new_tokens, num_beams=self.config.beams, do_sample=False
            )
        return self._processor.batch_decode(ids, skip_special_tokens=False)

    def _parsed(self, answer: str, task: str) -> Any:
        text = answer.replace(self._processor.tokenizer.pad_token, "")
        return self._processor.post_process_generation(text=text, task=task, image_size=(BINS, BINS))[task]

    def close(self) -> None:
        self._model = self._processor = None


def text_lines(found: dict) -> list[dict]:
    """Rows of schemas.tables.TEXT_LINE from Florence-2's quads, whose corners are bin numbers."""
    return [
        {"text": text, "score": 1.0, "polygon": [(bin_ + 0.5) / BINS for bin_ in quad]}
        for text, quad in zip(map(plain, found["labels"]), found["quad_boxes"], strict=True)
        if text
    ]


def region_boxes(found: dict) -> list[dict]:
    """Rows of schemas.tables.BOX from Florence-2's boxes, whose corners are bin numbers; empty boxes are left out."""
    boxes = []
    for label, corners in zip(map(plain, found["labels"]), found["bboxes"], strict=True):
        x1, y1, x2, y2 = ((bin_ + 0.5) / BINS for bin_ in corners)
        if label and x1 < x2 and y1 < y2:
            boxes.append({"label": label, "score": 1.0, "x1": x1, "y1": y1, "x2": x2, "y2": y2})
    return boxes


def plain(text: str) -> str:
    """Words without the location tokens that the library's parser leaves in where the model wrote too many or few."""
    return LOCATION.sub("", text).strip()
