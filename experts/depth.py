"""Relative depth: Depth Anything and its kin through transformers, kept as a 16-bit map or as the depth of boxes."""

import inspect
import io
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from experts.base import (
    Context,
    Expert,
    ModelExpertSection,
    Pixels,
    Prior,
    bounded,
    compiled,
    finite,
    load_pretrained,
    stacked,
    torch_dtype,
)
from experts.object_depth import distinct, object_depths
from schemas.section import later, located
from schemas.tables import DEPTH_PRIOR

LONGEST_SIDE = 4096
# The processor keeps the aspect ratio at a short side of 518: the tokens, and attention's square of them, grow with it.
LONGEST_ASPECT = 4.0
LONGEST_FULL = 2048
"""Pixels of a map that boxes are read off: of most models more than they give."""
LEAST_DEPTH = 0.1
"""Metres, models of metric depth: nearer than that would take the whole 16 bits."""
LEAST_RANGE = 1e-12
METRIC = ("glpn", "tipsv2_dpt", "zoedepth")
"""Model types of transformers that give metres and whose configuration does not say so."""

Detector = Literal["closed_set", "open_set"]
DETECTORS: tuple[Detector, ...] = get_args(Detector)


class DepthSection(ModelExpertSection):
    """Monocular depth."""

    model: str = located(
        "depth-anything/Depth-Anything-V2-Small-hf", description="hub id (org/name) or local folder of a depth model"
    )
    output: Literal["auto", "disparity", "depth"] = Field(
        "auto",
        description="whether larger values of the model are nearer (disparity) or farther (depth, in metres); auto "
        "goes by its configuration, and takes disparity where that does not say",
    )
    store: Literal["map", "objects"] = Field(
        "map",
        description="what is kept of an image: the map, or only how near each box of the detectors in `boxes` is, read "
        "off the model's output at full size: a small table, but no maps for package.depth_maps",
    )
    boxes: tuple[Detector, ...] = Field(
        DETECTORS, min_length=1, description="detectors whose boxes get a depth where store is objects; they must be on"
    )
    map_size: int = Field(256, ge=16, le=2048, description="longest side of the stored map, in pixels")
    far_below: float = later(
        1 / 3,
        ge=0,
        le=1,
        description="a box is far below this nearness; 0 is the farthest place of the image, 1 the nearest",
    )
    near_above: float = later(2 / 3, ge=0, le=1, description="a box is near above this nearness")

    @model_validator(mode="after")
    def _ordered(self) -> "DepthSection":
        if self.far_below > self.near_above:
            raise ValueError(f"far_below ({self.far_below}) must not be above near_above ({self.near_above})")
        return self


@dataclass(frozen=True)
class _Picture(Pixels):
    """A picture as the model takes it.

    Attributes:
        seen: (width, height) of what the processor was given, px.
    """

    seen: tuple[int, int]


@dataclass(frozen=True)
class _Seen:
    """What the model gave for one picture.

    Attributes:
        disparity: float32 (h, w), larger is nearer.
        boxes: rows of schemas.tables.BOX by expert, whose depth is to be stored.
    """

    disparity: np.ndarray
    boxes: dict[str, list[dict[str, Any]]]


class Depth(Expert):
    """Depth Anything, DPT, ZoeDepth, Depth Pro, ...; larger values are nearer whatever the model's own convention.

    A decided row's `objects` are the decided boxes of the detectors, nearest first, each with a `band`: near, middle or
    far.
    """

    name = "depth"
    version = 2
    schema = DEPTH_PRIOR
    section = DepthSection
    about = "relative depth, as a map or of each box; not one of the paper's experts"
    config: DepthSection

    @property
    def needs(self) -> tuple[str, ...]:
        return self.config.boxes if self.config.store == "objects" else ()

    def open(self, device: str) -> None:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        self._processor, model = load_pretrained(
            self.name, self.config, AutoImageProcessor, AutoModelForDepthEstimation, device
        )
        self._farther = self._gives_depth(model.config)
        self._model = compiled(model, self.config)
        self._device = device

    def _gives_depth(self, model: Any) -> bool:
        """Whether larger values of a model of this transformers configuration are farther."""
        if self.config.output != "auto":
            return self.config.output == "depth"
        kind = getattr(model, "depth_estimation_type", None)
        return kind == "metric" if kind is not None else model.model_type in METRIC

    def least(self) -> tuple[int, int] | None:
        size = getattr(self._processor, "size", None)
        width, height = getattr(size, "width", None), getattr(size, "height", None)
        return (width, height) if width and height else None

    def prepare(self, image: Image.Image) -> Pixels:
        seen = bounded(image, LONGEST_SIDE, LONGEST_ASPECT)
        return _Picture(self._processor(images=seen, return_tensors="pt").pixel_values[0], image.size, seen.size)

    def bucket(self, prepared: Pixels) -> Hashable:
        return tuple(prepared.values.shape)

    def look(self, prepared: list[Any], contexts: list[Context]) -> list["_Seen"]:
        import torch

        longest = LONGEST_FULL if self.config.store == "objects" else self.config.map_size
        with torch.inference_mode():
            pixels = stacked(prepared, self._device, torch_dtype(self.config))
            near = [self._disparity(one) for one in self._predicted(pixels, prepared)]
            if self.config.store == "map" or max(near[0].shape) > LONGEST_FULL:
                near = [_scaled(one, picture.size, longest) for one, picture in zip(near, prepared, strict=True)]
            maps = [one.cpu().numpy() for one in near]
        return [_Seen(one, _boxes(context, self.needs)) for one, context in zip(maps, contexts, strict=True)]

    def finish(self, looked: "_Seen") -> Prior:
        if self.config.store == "map":
            return packed(looked.disparity)
        return _prior(None, looked.disparity, object_depths(looked.disparity, looked.boxes))

    def _predicted(self, pixels: Any, pictures: list[_Picture]) -> list[Any]:
        """The model's output (h, w) of each picture, float32, at the model's own size."""
        output = self._model(pixel_values=pixels)
        output.predicted_depth = finite(output.predicted_depth, self.name).float()
        if not _pads(self._processor):
            return list(output.predicted_depth)
        # ZoeDepth sees a picture with a mirrored margin; its processor knows how wide that was.
        sizes = [picture.seen[::-1] for picture in pictures]
        found = self._processor.post_process_depth_estimation(output, source_sizes=sizes)
        return [one["predicted_depth"] for one in found]

    def _disparity(self, predicted: Any) -> Any:
        return 1.0 / predicted.clamp(min=LEAST_DEPTH) if self._farther else predicted

    def decide(self, measured: Prior, context: Context) -> Prior:
        boxes = _boxes(context, DETECTORS)
        if measured["disparity_png"] is None:
            stored = {(one["expert"], one["anchor"]): one for one in measured["objects"]}
            found = [stored[key] for key in distinct(boxes) if key in stored]
        else:
            found = object_depths(_levels(measured), boxes) if any(boxes.values()) else []
        nearest_first = sorted(found, key=lambda one: -one["nearness"])
        return measured | {"objects": [one | {"band": self._band(one["nearness"])} for one in nearest_first]}

    def _band(self, near: float) -> str:
        if near < self.config.far_below:
            return "far"
        return "near" if near > self.config.near_above else "middle"

    def close(self) -> None:
        self._model = self._processor = None


def _scaled(near: Any, size: tuple[int, int], longest: int) -> Any:
    """Disparity (h, w) at the aspect ratio of a picture of `size`, its longest side `longest`."""
    import torch

    width, height = (max(1, round(side * longest / max(size))) for side in size)
    return torch.nn.functional.interpolate(near[None, None], (height, width), mode="bilinear", antialias=True)[0, 0]


def _pads(processor: Any) -> bool:
    """Whether a processor adds a margin that only its post-processing takes away."""
    given = inspect.signature(processor.post_process_depth_estimation).parameters
    return bool("source_sizes" in given and processor.do_pad)


def _boxes(context: Context, experts: tuple[str, ...]) -> dict[str, list[dict[str, Any]]]:
    """Rows of schemas.tables.BOX by expert, of those that are there and did not fail."""
    return {name: context[name]["boxes"] for name in experts if name in context and not context[name].get("error")}


def packed(disparity: np.ndarray) -> Prior:
    """Disparity (h, w) as columns of schemas.tables.DEPTH_PRIOR. Raises ValueError where it is not finite."""
    low, high = float(disparity.min()), float(disparity.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("the depth model gave values that are not finite")
    levels = np.rint((disparity - low) / max(high - low, LEAST_RANGE) * 65535).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "PNG")
    return _prior(out.getvalue(), disparity, [])


def _prior(png: bytes | None, disparity: np.ndarray, objects: list[dict[str, Any]]) -> Prior:
    low, high = float(disparity.min()), float(disparity.max())
    return {"disparity_png": png, "disparity_min": low, "disparity_max": high, "objects": objects}


def unpacked(prior: Prior) -> np.ndarray:
    """The disparity (h, w), float32, that `packed` put away, to 1/65535 of its range."""
    low, high = prior["disparity_min"], prior["disparity_max"]
    return (low + _levels(prior).astype(np.float32) / 65535 * (high - low)).astype(np.float32)


def _levels(prior: Prior) -> np.ndarray:
    """The map (h, w) as it is stored, uint16."""
    with Image.open(io.BytesIO(prior["disparity_png"])) as image:
        return np.asarray(image)
