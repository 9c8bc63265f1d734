"""PP-OCR's detectors and recognisers as transformers has them (models pp_ocrv5_* and pp_ocrv6_*), for a GPU.

Pixels go in and boxes and letters come out as the checkpoints' own processors say, but for one thing: they stretch
every crop of a batch to the shape of the widest. Here a crop is prepared alone and padded to a multiple of WIDTH_STEP,
so that what is read of a line does not depend on the lines beside it. No classifier says whether a line is upside down:
a line that was read with little confidence is read again after a half turn, and the surer reading counts.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from experts.base import finite, loading
from experts.readers.base import Line, OcrSection, Reader
from experts.readers.layout import LONGEST_ASPECT, crop_line, from_text_corner
from schemas.identity import model_identity
from schemas.section import ModelRef

WIDTH_STEP = 64  # px; at most a sixth of the least width that the processors pad to, 320
# PP-OCRv6 small read 23 lines of print at 0.99 and more, and none of them above 0.86 upside down, but for words that
# say the same both ways.
SURE = 0.9
LEAST_SIDE_OF_TEXT = 3  # px of the canvas: thinner regions are no text (rapidocr, DBPostProcess.filter_det_res)
_BLANK = 0


@dataclass(frozen=True)
class _Canvas:
    """A canvas, and what the detector sees of it.

    Attributes:
        whole: uint8 (h, w, 3) RGB, contiguous.
        pixels: tensor (3, H, W) in the model's precision, H and W multiples of 32, on the CPU.
    """

    whole: np.ndarray
    pixels: Any


class PpOcrReader(Reader):
    """Detects on all pictures of a batch at once, and reads all their lines in batches of one width."""

    def __init__(self, config: OcrSection) -> None:
        super().__init__(config)
        self._det = ModelRef(model=config.det_model, revision=config.det_revision)
        self._rec = ModelRef(model=config.rec_model, revision=config.rec_revision)

    def models(self) -> dict[str, str]:
        return {"detector": model_identity(self._det), "recogniser": model_identity(self._rec)}

    def open(self, device: str) -> None:
        import torch
        import transformers

        self._device, self._dtype = device, getattr(torch, self.config.precision)
        with loading("ocr", self._det, "det_model"):
            model, kind = transformers.AutoModelForObjectDetection, "post_process_object_detection"
            self._det_processor, self._detector = self._loaded(self._det, model, kind)
        with loading("ocr", self._rec, "rec_model"):
            model, kind = transformers.AutoModelForTextRecognition, "post_process_text_recognition"
            self._rec_processor, self._recogniser = self._loaded(self._rec, model, kind)
            self._letters: list[str] = list(self._rec_processor.character_list)
            if not self._letters:
                raise ValueError("its preprocessor_config.json has no character_list")

    def _loaded(self, ref: ModelRef, kind: Any, processing: str) -> tuple[Any, Any]:
        """(processor with the method `processing`, model in eval mode on the device)."""
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(ref.model, revision=ref.revision)
        if not hasattr(processor, processing):
            raise ValueError(f"its processor, {type(processor).__name__}, has no {processing}")
        model = kind.from_pretrained(ref.model, revision=ref.revision, dtype=self._dtype)
        return processor, model.to(self._device).eval()

    def prepare(self, canvas: np.ndarray) -> _Canvas:
        import torch

        pixels = self._det_processor(
            images=torch.from_numpy(canvas).permute(2, 0, 1),
            input_data_format="channels_first",
            limit_side_len=self.config.side,
            limit_type="min",
            # The canvas is at most this long for its short side, so the limit leaves the enlarging as it is.
            max_side_limit=LONGEST_ASPECT * max(self.config.side, *canvas.shape[:2]),
            return_tensors="pt",
        )["pixel_values"][0]
        return _Canvas(canvas, pixels.to(self._dtype))

    def bucket(self, prepared: _Canvas) -> Hashable:
        return tuple(prepared.pixels.shape)

    def read(self, prepared: list[_Canvas]) -> list[list[Line]]:
        quads = self._detect(prepared)
        crops = [crop_line(one.whole, quad) for one, found in zip(prepared, quads, strict=True) for quad in found]
        readings = iter(self._both_ways(crops))
        return [[_line(quad, *next(readings)) for quad in found] for found in quads]

    def _both_ways(self, crops: list[np.ndarray]) -> list[tuple[str, float, bool]]:
        """Text, confidence, and whether the crop was read after a half turn, of each crop."""
        upright = self._recognise(crops)
        unsure = [i for i, (_, score) in enumerate(upright) if score < SURE]
        turned = self._recognise([np.ascontiguousarray(crops[i][::-1, ::-1]) for i in unsure])
        readings = [(*one, False) for one in upright]
        for i, (text, score) in zip(unsure, turned, strict=True):
            if score > upright[i][1]:
                readings[i] = (text, score, True)
        return readings

    def _detect(self, prepared: list[_Canvas]) -> list[list[np.ndarray]]:
        """Quads of every canvas: float32 (4, 2), px of the canvas, clockwise from its upper left."""
        import torch

        pixels = torch.stack([one.pixels for one in prepared]).to(self._device)
        with torch.inference_mode():
            text = finite(self._detector(pixel_values=pixels).last_hidden_state.float(), "ocr").cpu()
        found = self._det_processor.post_process_object_detection(
            SimpleNamespace(last_hidden_state=text),
            target_sizes=[torch.tensor(one.whole.shape[:2], dtype=torch.float32) for one in prepared],
            box_threshold=self.config.box_threshold,
        )
        return [_large_enough(one["boxes"].numpy()) for one in found]

    def _recognise(self, crops: list[np.ndarray]) -> list[tuple[str, float]]:
        """(text, confidence) of crops, uint8 (h, w, 3) RGB; those of one width share batches, whosever they are."""
        import torch

        pixels = [self._line_pixels(crop) for crop in crops]
        by_width: dict[int, list[int]] = {}
        for i, one in enumerate(pixels):
            by_width.setdefault(one.shape[-1], []).append(i)
        read: dict[int, tuple[str, float]] = {}
        for members in by_width.values():
            for start in range(0, len(members), self.config.crops):
                batch = members[start : start + self.config.crops]
                read |= zip(batch, self._letters_of(torch.stack([pixels[i] for i in batch])), strict=True)
        return [read[i] for i in range(len(crops))]

    def _line_pixels(self, crop: np.ndarray) -> Any:
        """Tensor (3, 48, w), w a multiple of WIDTH_STEP; what is added is 0, as the processors pad."""
        import torch
        from torch.nn.functional import pad

        pixels = self._rec_processor(
            images=torch.from_numpy(crop).permute(2, 0, 1), input_data_format="channels_first", return_tensors="pt"
        )["pixel_values"][0]
        return pad(pixels, (0, -pixels.shape[-1] % WIDTH_STEP)).to(self._dtype)

    def _letters_of(self, pixels: Any) -> list[tuple[str, float]]:
        """CTC's best path of every line, and the mean probability of its letters: post_process_text_recognition's own
        rule, which would wait for the GPU at every letter."""
        import torch

        with torch.inference_mode():
            best, letters = self._recogniser(pixel_values=pixels.to(self._device)).last_hidden_state.float().max(dim=-1)
            finite(best, "ocr")
        return [self._letters_at(*row) for row in zip(letters.cpu().numpy(), best.cpu().numpy(), strict=True)]

    def _letters_at(self, letters: np.ndarray, best: np.ndarray) -> tuple[str, float]:
        said = letters != _BLANK
        said[1:] &= letters[1:] != letters[:-1]
        text = "".join(self._letters[i] for i in letters[said])
        return text, float(best[said].mean()) if said.any() else 0.0

    def close(self) -> None:
        self._detector = self._recogniser = None


def _line(quad: np.ndarray, text: str, score: float, flipped: bool) -> Line:
    return Line(text, score, from_text_corner(quad, flipped))


def _large_enough(quads: np.ndarray) -> list[np.ndarray]:
    """Quads (n, 4, 2) whose upper and left sides are longer than LEAST_SIDE_OF_TEXT, as float32."""
    corners = quads.reshape(-1, 4, 2).astype(np.float32)
    sides = np.linalg.norm(corners[:, [1, 3]] - corners[:, [0]], axis=-1).astype(int)
    return list(corners[(sides > LEAST_SIDE_OF_TEXT).all(axis=1)])
