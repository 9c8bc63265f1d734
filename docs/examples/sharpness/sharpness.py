"""An expert of one's own: how sharp a picture is. It needs no model; one with a model loads it in `open`."""

from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pydantic import Field

from experts.base import Context, Expert, ExpertSection, Prior
from schemas.section import later


class SharpnessSection(ExpertSection):
    """What `perceive.sharpness` takes in a configuration."""

    side: int = Field(
        512, ge=64, le=4096, description="pictures are shrunk to this longest side, px, before the measure"
    )
    blurred_below: float = later(100.0, ge=0, description="a picture of less variance is called blurred")


class Sharpness(Expert):
    """Variance of the Laplacian of the grey picture: what is measured is stored, what is blurred is decided later."""

    name = "sharpness"
    version = 1
    schema = pa.schema(
        [
            pa.field("uid", pa.string(), nullable=False),
            pa.field("variance", pa.float32(), metadata={"unit": "grey level squared"}),
            pa.field("error", pa.string()),
        ]
    )
    section = SharpnessSection
    about = "how sharp the picture is"

    def open(self, device: str) -> None:
        pass

    def prepare(self, image: Image.Image) -> np.ndarray:
        image.thumbnail((self.config.side, self.config.side))
        return np.asarray(image.convert("L"), np.float32)

    def look(self, prepared: list[np.ndarray], contexts: list[Context]) -> list[Prior]:
        return [{"variance": _laplacian(grey).var().item()} for grey in prepared]

    def decide(self, measured: Prior, context: Context) -> Prior:
        return measured | {"blurred": measured["variance"] < self.config.blurred_below}

    def close(self) -> None:
        pass


def _laplacian(grey: np.ndarray) -> Any:
    padded = np.pad(grey, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return around - 4 * grey
