"""Real photographs (scikit-image's samples), and the forms of file that break image code."""

import io
from functools import cache

import skimage.data
from PIL import Image

ORIENTATION = 0x0112
# PIL turns counter-clockwise; a viewer that honours the tag undoes it.
TURNS = {3: 180, 6: 90, 8: 270}


def photograph(name: str) -> Image.Image:
    """RGB; `name` is a function of skimage.data."""
    return _loaded(name).copy()


@cache
def _loaded(name: str) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    """A JPEG whose pixels lie on their side and whose EXIF tag says how to stand them up."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image.rotate(TURNS[orientation], expand=True), "JPEG", quality=95, exif=exif)


def awkward_files() -> dict[str, bytes]:
    """Files that must all decode, by what is odd about them."""
    return dict(_awkward_files())


@cache
def _awkward_files() -> dict[str, bytes]:
    coffee, cat = photograph("coffee"), photograph("chelsea")
    return {
        "jpeg": encoded(coffee, "JPEG"),
        "odd size": encoded(cat.crop((3, 5, 336, 82))),
        "tall": encoded(cat.crop((100, 0, 131, 299))),
        "one pixel high": encoded(coffee.crop((0, 100, 400, 101))),
        "one pixel wide": encoded(coffee.crop((50, 0, 51, 400))),
        "one pixel": encoded(coffee.crop((0, 0, 1, 1))),
        "cmyk": encoded(coffee.convert("CMYK"), "JPEG"),
        "palette": encoded(cat.convert("P")),
        "grey": encoded(photograph("camera").convert("L")),
        "transparent": encoded(Image.merge("RGBA", (*cat.split(), cat.convert("L")))),
        "on its side": turned(photograph("rocket"), 6),
    }
