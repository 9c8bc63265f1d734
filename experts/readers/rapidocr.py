"""RapidOCR: the PP-OCR weights that its package ships, on ONNX Runtime.

The library's own steps, but for three. It normalises pixels in float64, which costs time and changes no bit. It reads
lines in sixes padded to the widest, which costs time too, and there a line's confidence hangs on its neighbours. And it
believes its classifier that a line is upside down, which is wrong of many long lines; here such a line is read both
ways, and the surer reading counts.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experts.readers.base import Line, OcrSection, Reader
from experts.readers.layout import crop_line, from_text_corner
from schemas.errors import SetupError
from schemas.identity import folder_hash


@dataclass(frozen=True)
class _Canvas:
    """Both uint8 (h, w, 3) BGR, contiguous: crops come from `whole`, `resized` is what the detector sees."""

    whole: np.ndarray
    resized: np.ndarray


class RapidOcrReader(Reader):
    """Detection, upside-down check and recognition, one picture after another: on a CPU a batch gains nothing."""

    def models(self) -> dict[str, str]:
        from importlib.metadata import distribution

        package = distribution("rapidocr")
        weights = Path(str(package.locate_file("rapidocr/models")))
        return {"rapidocr": package.version, "weights": f"folder:{folder_hash(weights)}"}

    def open(self, device: str) -> None:
        try:
            from rapidocr import RapidOCR

            self._engine = RapidOCR(params=_params(self.config))
            blank = np.full((64, 64, 3), 255, np.uint8)
            self._engine.run_ocr_steps(blank, {})
            self._engine.recognize_txt(self._engine.cls_and_rotate([blank])[0])
            self._pixels = self._engine.text_det.get_preprocess()
            values = np.tile(np.arange(256, dtype=np.uint8)[:, None], (1, 1, 3))
            self._normalised = self._pixels.normalize(values).astype(np.float32)
        except Exception as error:
            raise SetupError(
                f"perceive.ocr could not start RapidOCR: {type(error).__name__}: {error}. Its weights come inside the "
                "rapidocr package: reinstall rapidocr and onnxruntime, or set perceive.ocr to null to do without it."
            ) from error

    def prepare(self, canvas: np.ndarray) -> _Canvas:
        whole = np.ascontiguousarray(canvas[:, :, ::-1])
        return _Canvas(whole, self._pixels.resize(whole))

    def read(self, prepared: list[_Canvas]) -> list[list[Line]]:
        return [self._lines(one) for one in prepared]

    def _lines(self, canvas: _Canvas) -> list[Line]:
        quads = self._detect(canvas)
        if not len(quads):
            return []
        crops = [crop_line(canvas.whole, quad) for quad in quads]
        readings = self._recognise(crops)
        return [
            Line(text, score, from_text_corner(quad, flipped))
            for quad, (text, score, flipped) in zip(quads, readings, strict=True)
        ]

    def _recognise(self, crops: list[np.ndarray]) -> list[tuple[str, float, bool]]:
        """Text, confidence, and whether the crop was read after a half turn, of each crop, uint8 (h, w, 3) BGR."""
        turned, found = self._engine.cls_and_rotate(crops)
        sure = self._engine.cfg.Cls.cls_thresh
        flipped = [i for i, (label, score) in enumerate(found.cls_res) if "180" in label and score > sure]
        readings = [(*one, i in flipped) for i, one in enumerate(self._text(turned))]
        for i, (text, score) in zip(flipped, self._text([crops[i] for i in flipped]), strict=True):
            if score >= readings[i][1]:
                readings[i] = (text, score, False)
        return readings

    def _text(self, crops: list[np.ndarray]) -> list[tuple[str, float]]:
        if not crops:
            return []
        read = self._engine.recognize_txt(crops)
        return [(text, float(score)) for text, score in zip(read.txts, read.scores, strict=True)]

    def _detect(self, canvas: _Canvas) -> np.ndarray:
        """float32 (n, 4, 2), px of the canvas, clockwise from its upper left."""
        import cv2

        detector = self._engine.text_det
        pixels = np.ascontiguousarray(cv2.LUT(canvas.resized, self._normalised).transpose(2, 0, 1)[None])
        quads, _ = detector.postprocess_op(detector.session(pixels), canvas.whole.shape[:2])
        return quads

    def close(self) -> None:
        self._engine = self._pixels = None


def _params(config: OcrSection) -> dict[str, object]:
    return {
        "Global.log_level": "error",
        "Global.use_preprocess_img": False,
        "Global.use_vertical_padding": False,
        "Det.box_thresh": config.box_threshold,
        "Det.limit_side_len": config.side,
        "Rec.rec_batch_num": 1,
        "EngineConfig.onnxruntime.intra_op_num_threads": config.threads,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }
