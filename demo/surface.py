"""A drawing surface in unit coordinates (u to the right, v down, both 0..1), antialiased by oversampling."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw

from demo.palette import Colour

OVERSAMPLING = 2
Point = tuple[float, float]


@dataclass(frozen=True)
class Gradient:
    """Colours on a grid, row by row, interpolated over the bounding box of the primitive that it fills."""

    columns: int
    colours: tuple[Colour, ...]

    def picture(self, width: int, height: int) -> Image.Image:
        grid = Image.new("RGB", (self.columns, len(self.colours) // self.columns))
        grid.putdata(self.colours)
        return grid.resize((width, height), Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Radial:
    """From `inner` at `centre` (a fraction of the bounding box) to `outer` at the far corner."""

    inner: Colour
    outer: Colour
    centre: Point = (0.36, 0.3)

    def picture(self, width: int, height: int) -> Image.Image:
        # Pillow's gradient is 256 px wide with its zero in the middle; 180 px of it hold any centre within 0.3..0.7.
        span, (u, v) = 180, self.centre
        box = (128 - span * u, 128 - span * v, 128 + span * (1 - u), 128 + span * (1 - v))
        distance = _radial_gradient().resize((width, height), Image.Resampling.BILINEAR, box=box)
        size = (width, height)
        return Image.composite(Image.new("RGB", size, self.outer), Image.new("RGB", size, self.inner), distance)


@functools.cache
def _radial_gradient() -> Image.Image:
    return Image.radial_gradient("L")


Fill = Colour | Gradient | Radial


def vertical(*colours: Colour) -> Gradient:
    """Evenly spaced stops from top to bottom."""
    return Gradient(1, colours)


def horizontal(*colours: Colour) -> Gradient:
    """Evenly spaced stops from left to right."""
    return Gradient(len(colours), colours)


class Surface:
    """An RGBA picture, transparent at first, of `width` x `height` px once `finished`."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.image = Image.new("RGBA", (width * OVERSAMPLING, height * OVERSAMPLING))
        self._draw = ImageDraw.Draw(self.image)

    def polygon(self, points: Sequence[Point], fill: Fill) -> None:
        pixels = [self._pixel(p) for p in points]
        if isinstance(fill, tuple):
            self._draw.polygon(pixels, fill)
            return
        left, top = min(x for x, _ in pixels), min(y for _, y in pixels)
        mask = self._mask(pixels)
        ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in pixels], 255)
        self.image.paste(fill.picture(*mask.size), (round(left), round(top)), mask)

    def ellipse(self, u0: float, v0: float, u1: float, v1: float, fill: Fill) -> None:
        corners = [self._pixel((u0, v0)), self._pixel((u1, v1))]
        if isinstance(fill, tuple):
            self._draw.ellipse(corners, fill)
            return
        mask = self._mask(corners)
        ImageDraw.Draw(mask).ellipse((0, 0, mask.width - 1, mask.height - 1), 255)
        self.image.paste(fill.picture(*mask.size), (round(corners[0][0]), round(corners[0][1])), mask)

    def rect(self, u0: float, v0: float, u1: float, v1: float, fill: Fill, radius: float = 0.0) -> None:
        """A rectangle whose corners are rounded by `radius`, a fraction of its shorter side."""
        corners = [self._pixel((u0, v0)), self._pixel((u1, v1))]
        rounding = radius * min(corners[1][0] - corners[0][0], corners[1][1] - corners[0][1])
        if isinstance(fill, tuple):
            self._draw.rounded_rectangle(corners, rounding, fill)
            return
        mask = self._mask(corners)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), rounding, 255)
        self.image.paste(fill.picture(*mask.size), (round(corners[0][0]), round(corners[0][1])), mask)

    def line(self, points: Sequence[Point], fill: Colour, thickness: float) -> None:
        """`thickness` in px of the finished picture."""
        width = max(1, round(thickness * OVERSAMPLING))
        self._draw.line([self._pixel(p) for p in points], fill, width, joint="curve")

    def soft(self, colour: Colour, alpha: Image.Image) -> None:
        """Lay a colour over the whole surface with an alpha picture of any size, stretched to fit."""
        self.image.paste(colour, (0, 0), alpha.resize(self.image.size, Image.Resampling.BILINEAR))

    def light(self, corners: tuple[int, int, int, int]) -> None:
        """Multiply what is drawn by a brightness (0..255) at upper left, upper right, lower left and lower right."""
        grid = Image.new("L", (2, 2))
        grid.putdata(corners)
        falloff = grid.resize(self.image.size, Image.Resampling.BILINEAR)
        alpha = self.image.getchannel("A")
        self.image = ImageChops.multiply(self.image, Image.merge("RGBA", (falloff,) * 4))
        self.image.putalpha(alpha)
        self._draw = ImageDraw.Draw(self.image)

    def cut(self, other: "Surface") -> None:
        """Make transparent what `other`, of the same size, has drawn on."""
        self.image.putalpha(ImageChops.subtract(self.image.getchannel("A"), other.image.getchannel("A")))

    def finished(self) -> Image.Image:
        """RGBA, `width` x `height` px."""
        return self.image.reduce(OVERSAMPLING)

    def _pixel(self, point: Point) -> Point:
        return point[0] * self.image.width, point[1] * self.image.height

    def _mask(self, pixels: Sequence[Point]) -> Image.Image:
        xs, ys = [x for x, _ in pixels], [y for _, y in pixels]
        return Image.new("L", (max(1, round(max(xs) - min(xs))), max(1, round(max(ys) - min(ys)))))
