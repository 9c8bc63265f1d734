"""The image frame, as everybody sees it: one frame, EXIF orientation applied, RGB."""

import io

from PIL import ExifTags, Image, ImageOps

_LYING = range(5, 9)
"""EXIF orientations whose stored width is the picture's height."""


def decode_rgb(data: bytes, least: tuple[int, int] | None = None) -> Image.Image:
    """Original bytes to an RGB picture in the image frame (see schemas.tables).

    Transparency is laid over white, as a browser's page would show it; 16-bit greyscale is scaled to 8 bits.

    Args:
        least: (width, height) that the reader needs. A JPEG is then decoded at a half, a quarter or an eighth of its
            size (libjpeg's scaled inverse DCT) where neither side falls below this, which costs a fraction of the
            decoding and of the resizing after it. None decodes every pixel.

    Raises:
        ValueError: the bytes do not decode whole; the decoder's error and its first line.
    """
    try:
        return _decoded(data, least)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise anything: struct.error, SyntaxError, ZeroDivisionError, ...
        raise ValueError(f"{type(error).__name__}: {error}".splitlines()[0]) from error


def _decoded(data: bytes, least: tuple[int, int] | None) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(_loaded(image, least))
    if upright.mode.startswith("I;16") or upright.mode == "I":
        return upright.point(lambda v: v / 257).convert("L").convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, layer).convert("RGB")
    return upright.convert("RGB")


def _loaded(image: Image.Image, least: tuple[int, int] | None) -> Image.Image:
    """The pixels as they are stored, at the scale that `least` allows."""
    box = None
    if least is not None:
        lying = image.getexif().get(ExifTags.Base.Orientation, 1) in _LYING
        drafted = image.draft(None, (least[1], least[0]) if lying else least)
        box = drafted and drafted[1]
    image.load()
    if box is None:
        return image
    # A side that the scale does not divide ends in a pixel that is partly padding: half of it or more is cut off.
    size = int(box[2] + 0.5), int(box[3] + 0.5)
    return image if size == image.size else image.crop((0, 0, *size))
