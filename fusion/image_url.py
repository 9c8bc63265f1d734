"""An image as a `data:` URL, the way an engine is given it."""

import base64
import io
import warnings

from PIL import ExifTags, Image

from schemas.pictures import decode_rgb

MAX_ORIGINAL_BYTES = 4 << 20
_SENT_AS_THEY_ARE = {"JPEG", "PNG", "WEBP"}


def image_url(data: bytes, max_side: int) -> str:
    """`data:` URL of the original bytes where every engine reads them alike, else of a JPEG of the upright picture.

    Alike means: JPEG, PNG or WebP, 8-bit RGB or grey, one frame, stored upright, at most `max_side` pixels long and
    MAX_ORIGINAL_BYTES in size.

    Raises:
        ValueError: the bytes do not decode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                kind = image.format or ""
                alike = (
                    kind in _SENT_AS_THEY_ARE
                    and image.mode in ("RGB", "L")
                    and "transparency" not in image.info
                    and getattr(image, "n_frames", 1) == 1
                    and image.getexif().get(ExifTags.Base.Orientation, 1) == 1
                    and max(image.size) <= max_side
                    and len(data) <= MAX_ORIGINAL_BYTES
                )
            if alike:
                return _url(f"image/{kind.lower()}", data)
            upright = decode_rgb(data)
    except Exception as error:  # Pillow's decoders raise many kinds
        raise ValueError(f"the image does not decode: {error}") from error
    upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    jpeg = io.BytesIO()
    upright.save(jpeg, "JPEG", quality=95, subsampling=0)
    return _url("image/jpeg", jpeg.getvalue())


def _url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
