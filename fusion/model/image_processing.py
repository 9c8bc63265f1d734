"""From pictures to the canvases that connectors take, and boxes with them.

Pillow alone resizes, in training and in serving: torchvision's resizing differs by enough to change captions.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD, make_flat_list_of_images, to_numpy_array

from fusion.model.anyres import best_size, inner_size

Fit = Literal["pad", "crop", "stretch"]
Boxes = Sequence[Sequence[float]]
"""x1, y1, x2, y2 of each box, 0 to 1 of the picture's width and height."""

# Fitting a sliver of a picture into a square would blow it up to gigabytes. Beyond these bounds its ends are cut off
# (`crop`) or it is scaled down first (`pad`).
_MOST_ELONGATED = 128
_MOST_PADDED = 8192


class FusionImageProcessor(BaseImageProcessor):
    """Pictures as square canvases.

    Attributes:
        canvas: side in pixels.
        fit: how a picture that is no square becomes one. `pad`: centred on a square of the mean colour (LLaVA-1.5
            `llava/mm_utils.py`, MG-LLaVA); `crop`: short edge scaled, centre cut out (CLIP's own); `stretch`: sides
            scaled apart (SigLIP, Florence-2).
        image_grid_pinpoints: as in `FusionConfig`; with them a picture becomes a stretched canvas of the whole and
            tiles, as LLaVA-NeXT makes them, and `fit` does not apply.
        max_boxes: boxes of one picture beyond this number are left out, the last first.
        takes_boxes: whether the connector makes tokens of boxes.
    """

    model_input_names = ["pixel_values", "image_sizes", "boxes", "box_counts"]  # noqa: RUF012

    def __init__(
        self,
        canvas: int = 336,
        fit: Fit = "pad",
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        image_grid_pinpoints: list[list[int]] | None = None,
        takes_boxes: bool = False,
        max_boxes: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.canvas = canvas
        self.fit = fit
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.image_grid_pinpoints = image_grid_pinpoints
        self.takes_boxes = takes_boxes
        self.max_boxes = max_boxes

    def preprocess(
        self, images: Any, boxes: Sequence[Boxes] | None = None, return_tensors: str | None = None, **_: Any
    ) -> BatchFeature:
        """Canvases of all pictures, and boxes on them.

        Args:
            images: one picture or a list: PIL of any mode, or arrays (height, width, 3) of uint8.
            boxes: of each picture, best first; taken only where `takes_boxes`. A picture without any gets one of zeros
                (MG-LLaVA `mg_llava/dataset/utils.py`).

        Returns:
            pixel_values float32 (canvases, 3, canvas, canvas); image_sizes int64 (pictures, 2), height and width; where
            boxes are taken, boxes int64 (all boxes, 4) in pixels of the canvas and box_counts int64 (pictures,).

        Raises:
            ValueError: an array that is no picture, or boxes that `check_boxes` refuses.
        """
        pictures = [_picture(image) for image in make_flat_list_of_images(images)]
        pixels = [self._normalised(one) for picture in pictures for one in self._canvases(picture)]
        data: dict[str, Any] = {
            "pixel_values": torch.stack(pixels),
            "image_sizes": torch.tensor([[picture.height, picture.width] for picture in pictures]),
        }
        if self.takes_boxes:
            given = boxes if boxes is not None else [[] for _ in pictures]
            check_boxes(given, len(pictures))
            placed = [self.place_boxes(own, (p.height, p.width)) for own, p in zip(given, pictures, strict=True)]
            data |= {"boxes": torch.cat(placed), "box_counts": torch.tensor([len(own) for own in placed])}
        return BatchFeature(data, tensor_type=return_tensors)

    def place_boxes(self, boxes: Boxes, size: tuple[int, int]) -> torch.Tensor:
        """Boxes of a picture of that height and width on its canvas: int64 (k, 4), k from 1 to `max_boxes`.

        MG-LLaVA's rule (`mg_llava/dataset/utils.py`): moved by the padding, scaled, rounded, moved by the crop, cut at
        the border; those wholly outside are left out; one of zeros where none is left. Whole numbers, so that no
        narrower float type rounds them again.
        """
        height, width = size
        side = max(size) if self.fit == "pad" else min(size)
        axes = []
        for whole in (width, height):
            scale = self.canvas / (whole if self.fit == "stretch" else side)
            offset = (side - whole) // 2 if self.fit == "pad" else 0
            shift = (int(whole * self.canvas / side) - self.canvas) // 2 if self.fit == "crop" else 0
            axes.append((whole, offset, scale, shift))
        placed = []
        for box in boxes:
            x1, y1, x2, y2 = (
                round((value * whole + offset) * scale) - shift
                for value, (whole, offset, scale, shift) in zip(box, axes * 2, strict=True)
            )
            if x2 >= 0 and y2 >= 0 and x1 <= self.canvas and y1 <= self.canvas:
                placed.append([min(max(edge, 0), self.canvas) for edge in (x1, y1, x2, y2)])
        return torch.tensor(placed[: self.max_boxes] or [[0, 0, 0, 0]])

    def _canvases(self, picture: Image.Image) -> list[Image.Image]:
        square = (self.canvas, self.canvas)
        if self.image_grid_pinpoints:
            return [picture.resize(square, Image.Resampling.BICUBIC), *self._tiles(picture)]
        if self.fit == "crop":
            return [self._cropped(picture)]
        if self.fit == "pad":
            picture = self._padded(picture)
        return [picture.resize(square, Image.Resampling.BICUBIC)]

    def _tiles(self, picture: Image.Image) -> list[Image.Image]:
        assert self.image_grid_pinpoints is not None
        size = (picture.height, picture.width)
        target = best_size(size, self.image_grid_pinpoints)
        inner = inner_size(size, target)
        scaled = picture.resize((inner[1], inner[0]), Image.Resampling.BICUBIC)
        whole = Image.new("RGB", (target[1], target[0]))
        whole.paste(scaled, ((target[1] - inner[1]) // 2, (target[0] - inner[0]) // 2))
        return [
            whole.crop((x, y, x + self.canvas, y + self.canvas))
            for y in range(0, target[0], self.canvas)
            for x in range(0, target[1], self.canvas)
        ]

    def _cropped(self, picture: Image.Image) -> Image.Image:
        short = min(picture.size)
        picture = _centre(picture, *(min(edge, short * _MOST_ELONGATED) for edge in picture.size))
        scaled = picture.resize(
            (int(picture.width * self.canvas / short), int(picture.height * self.canvas / short)),
            Image.Resampling.BICUBIC,
        )
        return _centre(scaled, self.canvas, self.canvas)

    def _padded(self, picture: Image.Image) -> Image.Image:
        if max(picture.size) > max(_MOST_PADDED, self.canvas):
            picture = picture.copy()
            picture.thumbnail((_MOST_PADDED, _MOST_PADDED), Image.Resampling.BICUBIC)
        side = max(picture.size)
        square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in self.image_mean))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return square

    def _normalised(self, canvas: Image.Image) -> torch.Tensor:
        values = torch.from_numpy(np.array(canvas, dtype=np.float32)).permute(2, 0, 1) / 255
        mean, std = torch.tensor(self.image_mean), torch.tensor(self.image_std)
        return ((values - mean[:, None, None]) / std[:, None, None]).contiguous()


def check_boxes(boxes: Any, pictures: int) -> None:
    """Raises ValueError unless `boxes` holds, for each of so many pictures, any number of four finite numbers."""
    if not isinstance(boxes, Sequence) or len(boxes) != pictures:
        count = len(boxes) if isinstance(boxes, Sequence) else "no"
        raise ValueError(
            f"boxes are a list for each picture: there are {pictures} pictures and {count} lists of boxes. "
            "Give a picture without boxes an empty list."
        )
    for own in boxes:
        if not isinstance(own, Sequence) or not all(_is_box(box) for box in own):
            raise ValueError(
                f"a box is four finite numbers, x1, y1, x2, y2 from 0 to 1 of the picture; there is {own!r}"
            )


def _is_box(box: Any) -> bool:
    return (
        isinstance(box, Sequence)
        and len(box) == 4
        and all(isinstance(value, Real) and math.isfinite(value) for value in box)
    )


def _centre(picture: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _picture(image: Any) -> Image.Image:
    """Raises ValueError for an array that is no picture of 8 bits."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    values = np.ascontiguousarray(to_numpy_array(image))
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3:
        raise ValueError(f"a picture is uint8 (height, width, 3); there is {values.dtype} {values.shape}")
    return Image.fromarray(values)
