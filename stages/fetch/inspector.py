"""What a body must be to go on as an image: limits read from its header first, then decoded whole."""

import hashlib
import io
import warnings
from collections.abc import Collection
from dataclasses import dataclass

from PIL import ExifTags, Image

from schemas.ledger import Reason
from schemas.pictures import decode_rgb
from stages.fetch.errors import FetchRefused
from stages.fetch.gif import gif_frames

# Formats that may be allowed, by Pillow's lower-case name, with the file extension of each. Formats that Pillow hands
# to other programs, or that are collections of pictures, are not among them.
EXTENSIONS = {
    "jpeg": "jpg",
    "png": "png",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "tiff": "tif",
    "avif": "avif",
    "jpeg2000": "jp2",
}


@dataclass(frozen=True)
class Inspected:
    """What is known of a body that is an image within the limits.

    Attributes:
        sha256: of the body.
        format: lower-case Pillow name.
        width, height: px, in the image frame (orientation applied).
        orientation: EXIF 1..8, 1 where the file states none.
        phash: 64-bit DCT perceptual hash of the upright picture, first row of coefficients in the highest byte.
    """

    sha256: str
    format: str
    width: int
    height: int
    orientation: int
    phash: int


class Inspector:
    """Holds bodies against the limits.

    Args:
        formats: allowed, keys of EXTENSIONS.
        max_pixels: width x height.
        max_frames: of an animation.
        min_short_edge: px.
    """

    def __init__(self, formats: Collection[str], max_pixels: int, max_frames: int, min_short_edge: int) -> None:
        self._formats = [name.upper() for name in formats]
        self._max_pixels = max_pixels
        self._max_frames = max_frames
        self._min_short_edge = min_short_edge

    def inspect(self, data: bytes) -> Inspected:
        """Check and decode one body.

        Raises:
            FetchRefused: not_an_image, too_many_pixels, too_many_frames, too_small, decode.
        """
        with warnings.catch_warnings():
            # Pillow warns of what the limits here decide, and of oddities in files that nobody can act on.
            warnings.simplefilter("ignore")
            name, orientation = self._header(data)
            try:
                picture = decode_rgb(data)
            except ValueError as error:
                raise FetchRefused(Reason.DECODE, f"{name}: {error}") from error
        return Inspected(
            sha256=hashlib.sha256(data).hexdigest(),
            format=name,
            width=picture.width,
            height=picture.height,
            orientation=orientation,
            phash=perceptual_hash(picture),
        )

    def _header(self, data: bytes) -> tuple[str, int]:
        """Format and orientation, if what the header states is within the limits."""
        try:
            image = Image.open(io.BytesIO(data), formats=self._formats)
        except Image.UnidentifiedImageError:
            raise FetchRefused(Reason.NOT_AN_IMAGE, f"the body begins with {data[:16]!r}") from None
        except Image.DecompressionBombError as error:
            raise FetchRefused(Reason.TOO_MANY_PIXELS, str(error)) from error
        except Exception as error:
            raise FetchRefused(Reason.DECODE, f"header: {error}") from error
        with image:
            width, height = image.size
            if width * height > self._max_pixels:
                raise FetchRefused(Reason.TOO_MANY_PIXELS, f"{width} x {height} is above {self._max_pixels} pixels")
            # A multi-picture JPEG is a photograph with its previews behind it; any reader shows the first.
            name = "jpeg" if image.format == "MPO" else str(image.format).lower()
            frames = 1 if name == "jpeg" else self._frames(image, data)
            if frames > self._max_frames:
                raise FetchRefused(Reason.TOO_MANY_FRAMES, f"more than {self._max_frames} frames")
            if min(width, height) < self._min_short_edge:
                raise FetchRefused(
                    Reason.TOO_SMALL, f"{width} x {height}: the short edge is below {self._min_short_edge}"
                )
            try:
                orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            except Exception as error:
                raise FetchRefused(Reason.DECODE, f"EXIF: {error}") from error
        return name, orientation if orientation in range(1, 9) else 1

    def _frames(self, image: Image.Image, data: bytes) -> int:
        if image.format == "GIF":
            return gif_frames(data, self._max_frames)
        try:
            return getattr(image, "n_frames", 1)
        except Exception as error:
            raise FetchRefused(Reason.DECODE, f"frames: {error}") from error


def perceptual_hash(picture: Image.Image) -> int:
    """64-bit DCT hash of a picture, as ImageHash computes it; near pictures differ in few bits."""
    import imagehash

    return int(str(imagehash.phash(picture)), 16)
