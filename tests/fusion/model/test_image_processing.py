"""Canvases against transformers' processors (PIL backend) and LLaVA's padding rule; boxes by MG-LLaVA's rule."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from fusion.model import register
from fusion.model.image_processing import Fit, FusionImageProcessor

CANVAS = 56
SIZES = [(60, 90), (90, 60), (56, 56), (300, 41), (57, 1000), (7, 9), (1, 1), (1, 40), (113, 55)]
GRID = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    values = np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def ours(image: Any, **settings: Any) -> torch.Tensor:
    return FusionImageProcessor(canvas=CANVAS, **settings)(image, return_tensors="pt")["pixel_values"]


def same(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_crop_is_what_clip_does(size: tuple[int, int]) -> None:
    edges = {"size": {"shortest_edge": CANVAS}, "crop_size": {"height": CANVAS, "width": CANVAS}}
    same(
        ours(picture(*size), fit="crop"),
        CLIPImageProcessorPil(**edges)(picture(*size), return_tensors="pt")["pixel_values"],
    )


@pytest.mark.parametrize("size", SIZES)
def test_stretch_is_what_siglip_does(size: tuple[int, int]) -> None:
    half = (0.5, 0.5, 0.5)
    siglip = SiglipImageProcessorPil(size={"height": CANVAS, "width": CANVAS})
    same(
        ours(picture(*size), fit="stretch", image_mean=half, image_std=half),
        siglip(picture(*size), return_tensors="pt")["pixel_values"],
    )


@pytest.mark.parametrize("size", SIZES)
def test_pad_centres_the_picture_on_a_square_of_the_mean_colour_before_clip(size: tuple[int, int]) -> None:
    height, width = size
    side = max(size)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = (122, 116, 104)  # CLIP's mean times 255, without the fraction
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = np.asarray(picture(height, width))
    edges = {"size": {"shortest_edge": CANVAS}, "crop_size": {"height": CANVAS, "width": CANVAS}}
    same(
        ours(picture(height, width), fit="pad"),
        CLIPImageProcessorPil(**edges)(Image.fromarray(square), return_tensors="pt")["pixel_values"],
    )


@pytest.mark.parametrize("size", [size for size in SIZES if size != (1, 40)] + [(500, 501), (1000, 200), (112, 112)])
def test_tiles_are_those_of_llava_next(size: tuple[int, int]) -> None:
    llava = LlavaNextImageProcessorPil(
        size={"shortest_edge": CANVAS},
        crop_size={"height": CANVAS, "width": CANVAS},
        image_grid_pinpoints=GRID,
    )
    theirs = llava(picture(*size), return_tensors="pt")
    made = FusionImageProcessor(canvas=CANVAS, image_grid_pinpoints=GRID)(picture(*size), return_tensors="pt")
    same(made["pixel_values"], theirs["pixel_values"][0])
    assert made["image_sizes"].tolist() == theirs["image_sizes"].tolist()


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "PA", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F"])
def test_a_picture_of_any_mode_becomes_a_canvas(fit: Fit, mode: str) -> None:
    image = picture(9, 30)
    image = image.convert("L").convert(mode) if mode in ("I;16", "I", "F", "PA") else image.convert(mode)
    pixels = ours(image, fit=fit)
    assert pixels.shape == (1, 3, CANVAS, CANVAS)
    assert torch.isfinite(pixels).all()
    same(pixels, ours(image.convert("RGB"), fit=fit))


@pytest.mark.parametrize("size", [(1, 1), (1, 100_000), (100_000, 1), (3, 20_000)])
@pytest.mark.parametrize(
    "settings", [{"fit": "pad"}, {"fit": "crop"}, {"fit": "stretch"}, {"image_grid_pinpoints": GRID}]
)
def test_a_sliver_takes_no_more_memory_than_a_picture(size: tuple[int, int], settings: dict[str, Any]) -> None:
    pixels = ours(Image.new("RGB", size[::-1], (255, 0, 0)), **settings)
    assert pixels.shape[1:] == (3, CANVAS, CANVAS)
    red = (torch.tensor([1.0, 0.0, 0.0]) - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor(
        [0.26862954, 0.26130258, 0.27577711]
    )
    if settings.get("fit") in ("crop", "stretch"):
        same(pixels, red[:, None, None].expand_as(pixels))


def test_arrays_are_taken_and_what_is_no_picture_is_refused() -> None:
    image = picture(20, 30)
    same(ours(np.asarray(image)), ours(image))
    same(ours([image, np.asarray(image)]), ours([image, image]))
    for wrong in (np.zeros((3, 20, 30), dtype=np.uint8), np.zeros((20, 30, 3), dtype=np.float32)):
        with pytest.raises(ValueError, match="a picture is uint8"):
            ours(wrong)


def test_it_is_saved_and_found_again_as_it_was(tmp_path: Any) -> None:
    register()
    one = FusionImageProcessor(
        canvas=70, fit="stretch", image_mean=(0.1, 0.2, 0.3), takes_boxes=True, max_boxes=7, image_grid_pinpoints=None
    )
    one.save_pretrained(tmp_path)
    other = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(other, FusionImageProcessor)
    assert other.to_dict() == one.to_dict()
    boxes = [[[0.1, 0.2, 0.5, 0.6]], []]
    first, second = (p([picture(9, 30), picture(5, 5)], boxes=boxes, return_tensors="pt") for p in (one, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["box_counts"].tolist() == [1, 1]
    assert first["boxes"].tolist() == [[7, 14, 35, 42], [0, 0, 0, 0]]


edges = st.floats(-0.5, 1.5, allow_nan=False)
any_box = st.tuples(edges, edges, edges, edges)
inner = st.floats(0, 1)
inner_box = st.tuples(inner, inner, inner, inner).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
fits = st.sampled_from(["pad", "crop", "stretch"])


@given(boxes=st.lists(any_box, max_size=12), size=sizes, fit=fits, canvas=st.integers(14, 1024))
def test_boxes_lie_on_the_canvas_and_there_is_always_one(boxes: Any, size: Any, fit: Fit, canvas: int) -> None:
    placed = FusionImageProcessor(canvas=canvas, fit=fit, max_boxes=10).place_boxes(boxes, size)
    assert placed.dtype == torch.int64
    assert 1 <= len(placed) <= 10
    assert placed.shape[1] == 4
    assert placed.min() >= 0
    assert placed.max() <= canvas


@given(boxes=st.lists(inner_box, min_size=1, max_size=10), size=sizes, fit=st.sampled_from(["pad", "stretch"]))
def test_where_the_whole_picture_is_on_the_canvas_every_box_is_in_its_order(boxes: Any, size: Any, fit: Fit) -> None:
    processor = FusionImageProcessor(canvas=CANVAS, fit=fit)
    placed = processor.place_boxes(boxes, size)
    assert torch.equal(placed, torch.cat([processor.place_boxes([box], size) for box in boxes]))
    assert (placed[:, :2] <= placed[:, 2:]).all()


@given(size=sizes, canvas=st.integers(14, 1024))
def test_the_box_of_the_whole_picture_is_where_the_padding_leaves_it(size: tuple[int, int], canvas: int) -> None:
    height, width = size
    side = max(size)
    [box] = FusionImageProcessor(canvas=canvas, fit="pad").place_boxes([(0, 0, 1, 1)], size).tolist()
    left, top = (side - width) // 2, (side - height) // 2
    true = [edge * canvas / side for edge in (left, top, left + width, top + height)]
    assert all(abs(given - wanted) <= 0.5 + 1e-6 for given, wanted in zip(box, true, strict=True))


@given(size=sizes, canvas=st.integers(14, 1024))
def test_of_a_cropped_picture_the_short_side_fills_the_canvas(size: tuple[int, int], canvas: int) -> None:
    [box] = FusionImageProcessor(canvas=canvas, fit="crop").place_boxes([(0, 0, 1, 1)], size).tolist()
    assert box == [0, 0, canvas, canvas]


def test_boxes_are_where_the_thing_is_in_the_pixels() -> None:
    for fit, size in (("pad", (100, 40)), ("pad", (40, 100)), ("crop", (80, 100)), ("stretch", (50, 90))):
        height, width = size
        values = np.zeros((height, width, 3), dtype=np.uint8)
        values[height // 4 : height // 2, width // 4 : width // 2] = 255
        pixels = ours(Image.fromarray(values), fit=fit)[0].mean(0)
        rows, columns = (torch.nonzero((pixels > 0.5).any(axis)).flatten() for axis in (1, 0))
        box = (width // 4 / width, height // 4 / height, width // 2 / width, height // 2 / height)
        [placed] = FusionImageProcessor(canvas=CANVAS, fit=fit).place_boxes([box], size).tolist()  # type: ignore
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert all(abs(a - b) <= 1 for a, b in zip(placed, seen, strict=True)), (fit, size)


def test_the_numbers_of_mg_llava() -> None:
    """Worked by hand along `adjust_padding_boxes`, `adjust_short_resize_coordinates`, `adjust_center_crop_box`."""
    # 640 x 427 is padded by 106 above, and scaled by 768 / 640 = 1.2.
    padded = FusionImageProcessor(canvas=768, fit="pad")
    assert padded.place_boxes([(64 / 640, 100 / 427, 320 / 640, 300 / 427)], (427, 640)).tolist() == [
        [77, 247, 384, 487]
    ]
    # Without padding the short edge is 768 and 383 / 2 of the scaled width 1151 are cut off at either side.
    cropped = FusionImageProcessor(canvas=768, fit="crop")
    boxes = [(64 / 640, 100 / 427, 320 / 640, 300 / 427), (0, 0, 0.1, 0.5), (0.95, 0.5, 1, 1)]
    assert cropped.place_boxes(boxes, (427, 640)).tolist() == [[0, 180, 385, 540]]


def test_boxes_that_are_none_are_refused_and_those_beyond_the_number_left_out() -> None:
    takes = FusionImageProcessor(canvas=CANVAS, takes_boxes=True, max_boxes=2)
    box = [0.0, 0.0, 0.5, 0.5]
    assert takes(picture(9, 9), boxes=[[box, box, box]])["box_counts"].tolist() == [2]
    assert takes([picture(9, 9)] * 2)["boxes"].tolist() == [[0, 0, 0, 0]] * 2
    for wrong in ([[box], [box]], [], [box], [[[0.0, 0.0, 1.0]]], [[[0.0, float("nan"), 1.0, 1.0]]], [["abcd"]], "b"):
        with pytest.raises(ValueError, match="box"):
            takes(picture(9, 9), boxes=wrong)
    assert "boxes" not in FusionImageProcessor(canvas=CANVAS)(picture(9, 9), boxes=[[box]])
