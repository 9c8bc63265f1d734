"""Pictures for the report, small and inside the page as data: URIs."""

import base64
import io

import numpy as np
from PIL import Image

from schemas.pictures import decode_rgb

_EDGE = 720
_QUALITY = 72
# Dark (far) to bright (near); lightness rises evenly, so the order survives a grey print and colour blindness.
_RAMP = np.array([[13, 8, 40], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], float)


def thumbnail_uri(content: bytes, edge: int = _EDGE) -> str | None:
    """An image's original bytes as a picture of at most `edge` pixels a side, in the image frame.

    None where they do not decode.
    """
    try:
        image = decode_rgb(content, (edge, edge))
    except ValueError:
        return None
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    return _uri(image)


def disparity_uri(png: bytes) -> str:
    """A 16-bit disparity map in colours: near is bright."""
    with Image.open(io.BytesIO(png)) as image:
        image.thumbnail((_EDGE // 2, _EDGE // 2))
        disparity = np.asarray(image, dtype=float) / 65535
    stops = np.linspace(0, 1, len(_RAMP))
    colours = np.stack([np.interp(disparity, stops, _RAMP[:, channel]) for channel in range(3)], axis=-1)
    return _uri(Image.fromarray(colours.round().astype(np.uint8)))


def _uri(image: Image.Image) -> str:
    raw = io.BytesIO()
    image.save(raw, "webp", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(raw.getvalue()).decode()}"
