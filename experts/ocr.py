"""Text in the image, by one of several families of readers. Every line that was read is stored, in reading order."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from experts.base import Context, Expert, Prior
from experts.readers.base import Line, OcrSection, Reader
from experts.readers.layout import LONGEST_SIDE, on_canvas, reading_order
from experts.readers.ppocr import PpOcrReader
from experts.readers.rapidocr import RapidOcrReader
from schemas.tables import OCR_PRIOR

FAMILIES: dict[str, type[Reader]] = {"rapidocr": RapidOcrReader, "ppocr": PpOcrReader}


@dataclass(frozen=True)
class _Page:
    """A picture as `look` takes it.

    Attributes:
        prepared: by the reader.
        size: (width, height) of the picture on its canvas, px.
    """

    prepared: Any
    size: tuple[int, int]


@dataclass(frozen=True)
class _Read:
    """What was read on one page: lines in any order, px of the canvas; and the picture's size on it."""

    lines: list[Line]
    size: tuple[int, int]


class Ocr(Expert):
    """Detection, recognition, reading order. The confidence of a line decides only when it is read back."""

    name = "ocr"
    version = 2
    schema = OCR_PRIOR
    section = OcrSection
    about = "text in the image"
    on = True
    config: OcrSection

    def __init__(self, config: OcrSection) -> None:
        super().__init__(config)
        self._reader = FAMILIES[config.family](config)

    def models(self) -> dict[str, str]:
        return self._reader.models()

    def open(self, device: str) -> None:
        self._reader.open(device)

    def least(self) -> tuple[int, int]:
        return LONGEST_SIDE, LONGEST_SIDE

    def prepare(self, image: Image.Image) -> _Page:
        canvas, width, height = on_canvas(image)
        return _Page(self._reader.prepare(canvas), (width, height))

    def bucket(self, prepared: _Page) -> Hashable:
        return self._reader.bucket(prepared.prepared)

    def look(self, prepared: list[_Page], contexts: list[Context]) -> list[_Read]:
        read = self._reader.read([page.prepared for page in prepared])
        return [_Read(lines, page.size) for lines, page in zip(read, prepared, strict=True)]

    def finish(self, looked: _Read) -> Prior:
        """Lines with text, in reading order, in the frame of the picture."""
        said = [line for line in looked.lines if line.text.strip()]
        order = reading_order([line.quad for line in said])
        return {"lines": [_row(said[i], looked.size) for i in order]}

    def decide(self, measured: Prior, context: Context) -> Prior:
        return measured | {"lines": [line for line in measured["lines"] if line["score"] > self.config.threshold]}

    def close(self) -> None:
        self._reader.close()


def _row(line: Line, size: tuple[int, int]) -> dict[str, Any]:
    polygon = np.clip(line.quad / size, 0.0, 1.0)
    return {"text": line.text.strip(), "score": line.score, "polygon": polygon.flatten().tolist()}
