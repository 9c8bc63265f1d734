"""Files of a real photograph, whole and broken, as Pillow and our own decoder read them."""

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from demo.encodings import ENCODINGS, bomb
from schemas.pictures import decode_rgb

PHOTO = Image.fromarray(skimage.data.astronaut()).crop((0, 0, 500, 512))


def _difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, np.int16) - np.asarray(b.resize(a.size), np.int16)).mean())


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "turned", "reencoded", "resized"])
def test_whole_files_show_the_same_upright_picture(name: str) -> None:
    data = ENCODINGS[name](PHOTO)
    assert _difference(PHOTO, decode_rgb(data)) < 6
    assert data == ENCODINGS[name](PHOTO)


def test_turned_is_stored_on_its_side() -> None:
    stored = Image.open(io.BytesIO(ENCODINGS["turned"](PHOTO)))
    assert stored.size == (512, 500)


def test_sizes() -> None:
    assert decode_rgb(ENCODINGS["resized"](PHOTO)).size == (480, 492)
    assert decode_rgb(ENCODINGS["cropped"](PHOTO)).size == (476, 486)
    assert decode_rgb(ENCODINGS["thumbnail"](PHOTO)).width == 200


def test_animated_has_two_frames() -> None:
    assert getattr(Image.open(io.BytesIO(ENCODINGS["animated"](PHOTO))), "n_frames", 1) == 2


def test_cut_short_states_its_size_and_does_not_decode() -> None:
    data = ENCODINGS["cut_short"](PHOTO)
    assert Image.open(io.BytesIO(data)).size == PHOTO.size
    with pytest.raises(ValueError, match="truncated"):
        decode_rgb(data)


def test_bomb_is_small_and_claims_much() -> None:
    data = bomb(4000)
    assert len(data) < 10_000
    image = Image.open(io.BytesIO(data))
    assert image.size == (4000, 4000)
    image.load()
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(bomb(30_000)))
