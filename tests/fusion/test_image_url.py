"""What an engine is sent: the original bytes where all engines read them alike, else an upright JPEG."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fusion.image_url import image_url

PHOTO = Image.fromarray(data.chelsea())


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def sent(url: str) -> tuple[str, bytes]:
    mime, content = url.removeprefix("data:").split(";base64,")
    return mime, base64.b64decode(content)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_ordinary_images_are_sent_as_they_are(form: str) -> None:
    raw = encode(PHOTO, form)
    assert sent(image_url(raw, 1024)) == (f"image/{form.lower()}", raw)


def test_a_long_image_is_scaled_down() -> None:
    mime, content = sent(image_url(encode(PHOTO, "JPEG"), 100))
    with Image.open(io.BytesIO(content)) as image:
        assert (mime, image.format, max(image.size)) == ("image/jpeg", "JPEG", 100)


def test_a_turned_image_is_sent_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    _, content = sent(image_url(encode(PHOTO.rotate(90, expand=True), "JPEG", quality=95, exif=exif), 1024))
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == PHOTO.size
        assert np.abs(np.asarray(image, float) - np.asarray(PHOTO, float)).mean() < 3


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGBA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("I;16", "PNG"), ("RGB", "BMP"), ("RGB", "TIFF")],
)
def test_unusual_images_become_jpegs(mode: str, form: str) -> None:
    image = Image.fromarray(np.asarray(PHOTO.convert("L"), np.uint16) * 257) if mode == "I;16" else PHOTO.convert(mode)
    mime, content = sent(image_url(encode(image, form), 1024))
    with Image.open(io.BytesIO(content)) as jpeg:
        assert (mime, jpeg.mode, jpeg.size) == ("image/jpeg", "RGB", PHOTO.size)
        grey = np.abs(np.asarray(jpeg.convert("L"), float) - np.asarray(PHOTO.convert("L"), float))
        assert grey.mean() < 12


@pytest.mark.parametrize(
    "raw", [b"", b"not an image", encode(PHOTO, "BMP")[:5000], encode(PHOTO.convert("CMYK"), "JPEG")[:900]]
)
def test_what_does_not_decode_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match="does not decode"):
        image_url(raw, 1024)
