"""Text in the image: RapidOCR with the PP-OCR weights that its package ships, on ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from experts.base import Expert, ExpertSection, Prior
from schemas.errors import SetupError
from schemas.identity import folder_hash
from schemas.section import runtime
from schemas.tables import OCR_PRIOR

LONGEST_SIDE = 2000  # rapidocr/config.yaml, Global.max_side_len
LEAST_SIDE = 32  # the detector's stride: a thinner canvas has no cell
LONGEST_ASPECT = 8  # rapidocr/config.yaml, Global.width_height_ratio
TALL_CROP = 1.5  # rapidocr turns a crop taller than this times its width by 90 degrees before it reads it


class OcrSection(ExpertSection):
    """Text detector and recogniser."""

    threshold: float = Field(0.5, ge=0, le=1, description="lowest recognition confidence of a line")
    box_threshold: float = Field(0.5, ge=0, le=1, description="lowest confidence of a text region")
    side: int = Field(736, ge=32, le=4096, description="short side, in pixels, that the detector enlarges images to")
    threads: int = runtime(1, ge=1, le=64, description="ONNX Runtime threads of one worker")


class Ocr(Expert):
    """Detection, upside-down check, recognition; lines in reading order."""

    name = "ocr"
    version = 1
    schema = OCR_PRIOR
    config: OcrSection

    def models(self) -> dict[str, str]:
        from importlib.metadata import distribution

        package = distribution("rapidocr")
        weights = Path(str(package.locate_file("rapidocr/models")))
        return {"rapidocr": package.version, "weights": f"folder:{folder_hash(weights)}"}

    def open(self, device: str) -> None:
        try:
            from rapidocr import RapidOCR

            self._engine = RapidOCR(
                params={
                    "Global.log_level": "error",
                    "Global.use_preprocess_img": False,
                    "Global.use_vertical_padding": False,
                    "Det.box_thresh": self.config.box_threshold,
                    "Det.limit_side_len": self.config.side,
                    "EngineConfig.onnxruntime.intra_op_num_threads": self.config.threads,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                }
            )
            blank = np.full((64, 64, 3), 255, np.uint8)
            self._engine.run_ocr_steps(blank, {})
            self._engine.recognize_txt(self._engine.cls_and_rotate([blank])[0])
        except Exception as error:
            raise SetupError(
                f"perceive.ocr could not start RapidOCR: {type(error).__name__}: {error}. Its weights come inside the "
                "rapidocr package: reinstall rapidocr and onnxruntime, or set perceive.ocr to null to do without it."
            ) from error

    def look(self, images: list[Image.Image], context: list[dict[str, Prior]]) -> list[Prior]:
        return [{"lines": self._lines(image)} for image in images]

    def _lines(self, image: Image.Image) -> list[dict[str, Any]]:
        canvas, width, height = on_canvas(image)
        found, turned, read, _ = self._engine.run_ocr_steps(canvas[:, :, ::-1], {})
        if found.boxes is None or read.txts is None:
            return []
        lines, quads = [], []
        for quad, text, score, (label, sure) in zip(found.boxes, read.txts, read.scores, turned.cls_res, strict=True):
            if not text.strip() or score < self.config.threshold:
                continue
            flipped = "180" in label and sure > self._engine.cfg.Cls.cls_thresh
            quad = np.clip(from_text_corner(quad, flipped) / (width, height), 0.0, 1.0)
            quads.append(quad)
            lines.append({"text": text, "score": float(score), "polygon": quad.flatten().tolist()})
        return [lines[i] for i in reading_order(quads)]

    def close(self) -> None:
        self._engine = None


def on_canvas(image: Image.Image) -> tuple[np.ndarray, int, int]:
    """The image, shrunk to LONGEST_SIDE, in the upper left of a black canvas that the detector can take.

    RapidOCR pads wide images only and enlarges short sides without a bound; a narrow strip would cost gigabytes.

    Returns:
        canvas (h, w, 3) uint8 RGB, and the width and height of the picture on it in pixels.
    """
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    least = max(LEAST_SIDE, -(-max(width, height) // LONGEST_ASPECT))
    canvas = np.zeros((max(height, least), max(width, least), 3), np.uint8)
    canvas[:height, :width] = np.asarray(image)
    return canvas, width, height


def from_text_corner(quad: np.ndarray, flipped: bool) -> np.ndarray:
    """A detector's quad (4, 2), clockwise from the image's upper left, turned to begin where the text begins.

    RapidOCR reads a tall crop after a quarter turn to the left, so its text runs downwards and begins at the upper
    right corner; `flipped` says that the crop was read after a half turn.
    """
    across = max(np.linalg.norm(quad[0] - quad[1]), np.linalg.norm(quad[2] - quad[3]))
    down = max(np.linalg.norm(quad[0] - quad[3]), np.linalg.norm(quad[1] - quad[2]))
    start = (int(down) >= TALL_CROP * max(1, int(across))) + 2 * flipped
    return np.roll(quad, -start, axis=0)


def reading_order(quads: list[np.ndarray]) -> list[int]:
    """Indices of quads (4, 2) row by row from the top, left to right in a row.

    A quad belongs to the row whose first quad spans its vertical centre.
    """
    spans = [(quad[:, 1].min(), quad[:, 1].max(), quad[:, 0].min()) for quad in quads]
    rows: list[list[int]] = []
    for i in sorted(range(len(quads)), key=lambda i: (spans[i][0], spans[i][2])):
        centre = (spans[i][0] + spans[i][1]) / 2
        if rows and spans[rows[-1][0]][0] <= centre <= spans[rows[-1][0]][1]:
            rows[-1].append(i)
        else:
            rows.append([i])
    return [i for row in rows for i in sorted(row, key=lambda i: spans[i][2])]
