"""How a picture becomes the bytes of a file, whole, altered or broken."""

import io
import struct
import zlib
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

ORIENTATION = 0x0112
"""The EXIF tag that says how to turn a picture upright."""


def jpeg(image: Image.Image, quality: int = 88) -> bytes:
    return _saved(image, "JPEG", quality=quality)


def png(image: Image.Image) -> bytes:
    return _saved(image, "PNG")


def webp(image: Image.Image) -> bytes:
    return _saved(image, "WEBP", quality=85)


def turned(image: Image.Image) -> bytes:
    """A JPEG that is stored lying on its side, with the EXIF orientation (6) that stands it upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return _saved(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=88, exif=exif)


def reencoded(image: Image.Image) -> bytes:
    """The same picture at JPEG quality 50."""
    return jpeg(image, 50)


def resized(image: Image.Image) -> bytes:
    """The same picture with a short edge of 480 px."""
    share = 480 / min(image.size)
    return jpeg(image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS))


def cropped(image: Image.Image) -> bytes:
    """The same picture without 2.5 % at each edge."""
    dx, dy = round(image.width * 0.025), round(image.height * 0.025)
    return jpeg(image.crop((dx, dy, image.width - dx, image.height - dy)))


def watermarked(image: Image.Image) -> bytes:
    """The same picture with a half-transparent line of letters across its lower third."""
    size = image.height // 12
    letters = Image.new("L", image.size)
    ImageDraw.Draw(letters).text(
        (image.width / 2, image.height * 0.72), "scene-world.test", 110, ImageFont.load_default(size), anchor="mm"
    )
    return jpeg(Image.composite(Image.new("RGB", image.size, (255, 255, 255)), image, letters))


def thumbnail(image: Image.Image) -> bytes:
    """200 px wide."""
    return jpeg(image.resize((200, round(200 * image.height / image.width)), Image.Resampling.LANCZOS))


def animated(image: Image.Image) -> bytes:
    """A GIF of two frames, the second one mirrored."""
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _saved(image, "GIF", save_all=True, append_images=[mirrored], duration=500)


def cut_short(image: Image.Image) -> bytes:
    """A JPEG file that ends in the middle of its scan."""
    data = jpeg(image)
    return data[: len(data) * 6 // 10]


def bomb(side: int = 30_000) -> bytes:
    """A small PNG file whose header claims `side` x `side` pixels, of 1 bit, which it holds: all of them are black."""
    packed = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _saved(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


ENCODINGS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": jpeg,
    "png": png,
    "webp": webp,
    "turned": turned,
    "reencoded": reencoded,
    "resized": resized,
    "cropped": cropped,
    "watermarked": watermarked,
    "thumbnail": thumbnail,
    "animated": animated,
    "cut_short": cut_short,
}
