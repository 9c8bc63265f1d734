"""Decoding at the scale that is needed: the same picture as every pixel decoded and then resized."""

import io

import numpy as np
import pytest
from PIL import Image, ImageChops

from schemas.pictures import decode_rgb
from tests.photographs import awkward_files, encoded, photograph, turned

NAMES = ["retina", "hubble_deep_field", "astronaut", "coffee", "rocket"]


def resized(picture, least):
    return np.asarray(picture.resize(least, Image.Resampling.BICUBIC), np.int16)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_scaled_photograph_is_the_photograph(name, options):
    photo = photograph(name)
    least = (photo.width // 5, photo.height // 5)
    data = encoded(photo, "JPEG", quality=90, **options)
    scaled, whole = decode_rgb(data, least), decode_rgb(data)
    assert scaled.size == tuple(int(side / 4 + 0.5) for side in photo.size)
    apart = np.abs(resized(scaled, least) - resized(whole, least))
    assert apart.mean() < 2 and np.percentile(apart, 99) < 20


@pytest.mark.parametrize(
    "least", [(1, 1), (63, 43), (64, 43), (160, 100), (320, 213), (321, 100), (100, 214), (999, 9)]
)
def test_neither_side_falls_below_what_is_needed(least):
    photo = photograph("rocket")  # 640 x 427
    size = decode_rgb(encoded(photo, "JPEG"), least).size
    if all(need <= side for need, side in zip(least, photo.size, strict=True)):
        assert all(need <= side for need, side in zip(least, size, strict=True))
        assert any(side < 2 * need for need, side in zip(least, size, strict=True)) or size == (80, 53)
    else:
        assert size == photo.size


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_need_is_of_the_upright_picture(orientation):
    photo = photograph("rocket")
    scaled = decode_rgb(turned(photo, orientation), (300, 100))
    assert scaled.size == (320, 214)
    apart = ImageChops.difference(scaled, photo.resize(scaled.size, Image.Resampling.BOX))
    assert np.asarray(apart).mean() < 4


def test_cmyk_and_grey_keep_their_colours():
    photo = photograph("coffee")
    for mode in ("CMYK", "L"):
        data = encoded(photo.convert(mode), "JPEG", quality=95)
        scaled = decode_rgb(data, (150, 100))
        assert (scaled.mode, scaled.size) == ("RGB", (150, 100))
        assert np.abs(resized(scaled, (150, 100)) - resized(decode_rgb(data), (150, 100))).mean() < 1.5


def test_other_formats_and_small_images_are_decoded_as_before():
    for what, data in awkward_files().items():
        scaled, whole = decode_rgb(data, (1000, 1000)), decode_rgb(data)
        assert ImageChops.difference(scaled, whole).getbbox() is None, what
    for kind in ("PNG", "WEBP"):
        data = encoded(photograph("coffee"), kind)
        assert decode_rgb(data, (10, 10)).size == (600, 400)


def test_half_a_file_is_no_picture():
    data = encoded(photograph("coffee"), "JPEG")
    with pytest.raises(ValueError, match="OSError: image file is truncated"):
        decode_rgb(data[: len(data) // 2], (32, 32))


def test_a_camera_file_with_a_preview_behind_it():
    photo = photograph("coffee")
    out = io.BytesIO()
    photo.save(out, "MPO", save_all=True, append_images=[photo.resize((60, 40))])
    assert decode_rgb(out.getvalue(), (150, 100)).size == (150, 100)
