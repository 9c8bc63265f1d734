"""A picture of a file as the model is to see it: one frame, upright, RGB."""

import io

from PIL import Image, ImageOps


def decoded(data: bytes) -> Image.Image:
    """The RGB picture of encoded bytes, as `stages.images.decode_rgb` shows it to experts and engine.

    EXIF orientation is applied, transparency is laid over white, 16-bit greyscale is scaled to 8 bits.

    Raises:
        ValueError: the bytes do not decode whole.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16") or upright.mode == "I":
            return upright.point(lambda value: value / 257).convert("L").convert("RGB")
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            layer = upright.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer).convert("RGB")
        return upright.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds
        raise ValueError(f"{type(error).__name__}: {error}") from error
