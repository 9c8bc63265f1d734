"""Decoding as every stage does it: one frame, EXIF orientation applied, RGB."""

import io

from PIL import Image, ImageOps


def decode_rgb(data: bytes) -> Image.Image:
    """Original bytes to an RGB picture in the image frame (see schemas.tables).

    Transparency is laid over white, as a browser's page would show it; 16-bit greyscale is scaled to 8 bits.

    Raises:
        OSError, ValueError: the bytes do not decode whole.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        return upright.point(lambda v: v / 257).convert("L").convert("RGB")
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, layer).convert("RGB")
    return upright.convert("RGB")
