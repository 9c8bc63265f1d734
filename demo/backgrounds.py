"""The eight settings: what is behind and under the objects."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter

from demo.camera import Camera
from demo.palette import Colour, darker, lighter, mix
from demo.surface import OVERSAMPLING, Gradient, Surface, horizontal, vertical

SCENERY = 400.0
"""Distance in m of hills, mountains and skylines that no object can come near to."""


class View:
    """What a setting draws on.

    Attributes:
        land: sky and ground.
        upright: what stands behind the objects, a vertical plane at `upright_distance` m; transparent elsewhere.
        horizon: in unit coordinates.
        rng: the setting's own stream.
    """

    def __init__(self, camera: Camera, rng: random.Random) -> None:
        self.camera, self.rng = camera, rng
        self.land = Surface(camera.width, camera.height)
        self.upright = Surface(camera.width, camera.height)
        self.upright_distance = SCENERY
        self.horizon = camera.horizon / camera.height

    def foot(self, distance: float) -> float:
        """Stand the upright plane at `distance` m; returns the unit row of its foot."""
        self.upright_distance = distance
        return self.camera.row(distance) / self.camera.height

    def vary(self, colour: Colour, by: float = 0.08) -> Colour:
        tint = self.rng.choice(((255, 250, 235), (20, 24, 40), (255, 214, 170), (170, 200, 255)))
        return mix(colour, tint, self.rng.uniform(0, by))


@dataclass(frozen=True)
class Setting:
    """One kind of scene.

    Attributes:
        phrase: how a caption names it.
        paint: draws it.
        haze: what distant objects fade to, and by how much at the farthest.
        light: brightness 0..255 of the light on objects at the upper left, upper right, lower left, lower right.
        shadow: strength 0..1 of the shadows on the ground.
        unseen: the object colour that would not be told from the ground.
    """

    phrase: str
    paint: Callable[[View], None]
    haze: tuple[Colour, float]
    light: tuple[int, int, int, int]
    shadow: float
    unseen: str | None = None


def _sky(view: View, *stops: Colour) -> None:
    view.land.rect(0, 0, 1, view.horizon + 0.01, vertical(*(view.vary(c) for c in stops)))


def _ground(view: View, *stops: Colour) -> None:
    view.land.rect(0, view.horizon, 1, 1, vertical(*(view.vary(c) for c in stops)))


def _glow(view: View, colour: Colour, core: float, halo: float, strength: int) -> None:
    """A disc of light in the sky with a soft halo; sizes in fractions of the picture's height."""
    u, v = view.rng.uniform(0.1, 0.9), view.rng.uniform(0.12, 0.6) * view.horizon
    aspect = view.camera.height / view.camera.width
    falloff = Image.radial_gradient("L").point(lambda d: max(0, 255 - 2 * d) * strength // 255)
    width, height = view.land.width // 4, view.land.height // 4
    size = round(2 * halo * height)
    alpha = Image.new("L", (width, height))
    alpha.paste(falloff.resize((size, size)), (round(u * width - size / 2), round(v * height - size / 2)))
    ImageDraw.Draw(alpha).rectangle((0, round(view.horizon * height), width, height), 0)
    view.land.soft(colour, alpha)
    view.land.ellipse(u - core * aspect, v - core, u + core * aspect, v + core, lighter(colour, 0.6))


def _clouds(view: View, colour: Colour, count: int) -> None:
    width, height = view.land.width // 4, view.land.height // 4
    alpha = Image.new("L", (width, height))
    draw = ImageDraw.Draw(alpha)
    for _ in range(count):
        x, y = view.rng.uniform(0, width), view.rng.uniform(0.08, 0.7) * view.horizon * height
        span = view.rng.uniform(0.1, 0.24) * width
        for _ in range(9):
            radius = span * view.rng.uniform(0.12, 0.3)
            puff, lift = x + view.rng.uniform(-0.6, 0.6) * span, y - view.rng.uniform(0, 0.16) * span
            draw.ellipse((puff - radius * 1.5, lift - radius * 0.55, puff + radius * 1.5, lift + radius * 0.55), 225)
    alpha = alpha.filter(ImageFilter.GaussianBlur(width / 90))
    ImageDraw.Draw(alpha).rectangle((0, round(view.horizon * height), width, height), 0)
    view.land.soft(colour, alpha)


def _grain(view: View, colour: Colour, strength: float) -> None:
    """Specks on the ground that grow towards the viewer, in four bands."""
    full = Image.new("L", view.land.image.size)
    for band in range(4):
        top = round((view.horizon + (1 - view.horizon) * (band / 4) ** 1.5) * full.height)
        bottom = round((view.horizon + (1 - view.horizon) * ((band + 1) / 4) ** 1.5) * full.height)
        columns, rows = full.width // (2 + 2 * band), max(1, (bottom - top) // (1 + band))
        specks = Image.frombytes("L", (columns, rows), view.rng.randbytes(columns * rows))
        specks = specks.point(lambda v: int(max(0, v - 110) * strength))
        full.paste(specks.resize((full.width, bottom - top), Image.Resampling.BILINEAR), (0, top))
    view.land.soft(colour, full)


def _ridge(view: View, foot: float, height: float, bumps: int, top: Colour, bottom: Colour) -> None:
    """A soft chain of hills with its foot at unit row `foot`."""
    knots = [view.rng.uniform(0.25, 1.0) for _ in range(bumps + 1)]
    crest = []
    for i in range(bumps * 8 + 1):
        k, t = min(i // 8, bumps - 1), (i % 8) / 8 if i < bumps * 8 else 1.0
        ease = t * t * (3 - 2 * t)
        crest.append((i / (bumps * 8), foot - height * (knots[k] * (1 - ease) + knots[k + 1] * ease)))
    view.upright.polygon([*crest, (1, foot), (0, foot)], vertical(top, bottom))


def _conifer(s: Surface, u: float, foot: float, height: float, width: float, colour: Colour) -> None:
    s.rect(u - width * 0.06, foot - height * 0.12, u + width * 0.06, foot, darker((96, 70, 52), 0.2))
    for i in range(4):
        top, bottom = foot - height * (1 - 0.2 * i), foot - height * (0.62 - 0.18 * i)
        half = width * (0.2 + 0.1 * i)
        s.polygon(
            [(u, top), (u + half, bottom), (u - half, bottom)], horizontal(lighter(colour, 0.14), darker(colour, 0.25))
        )


def _meadow(view: View) -> None:
    rng, land, h = view.rng, view.land, view.horizon
    _sky(view, (74, 144, 226), (142, 194, 240), (220, 236, 246))
    _glow(view, (255, 246, 206), 0.03, 0.3, 150)
    _clouds(view, (255, 255, 255), rng.randint(3, 6))
    _ground(view, (172, 200, 112), (112, 168, 74), (74, 132, 54))
    _grain(view, (46, 96, 40), 0.5)
    _ridge(view, h + 0.004, 0.13 * rng.uniform(0.6, 1.2), 3, (126, 166, 178), (160, 192, 176))
    _ridge(view, h + 0.008, 0.07 * rng.uniform(0.6, 1.2), 4, (98, 152, 96), (140, 182, 108))
    for _ in range(150):
        near = rng.random() ** 0.7
        u, v = rng.random(), h + (1 - h) * near
        blade = 0.008 + 0.03 * near
        land.line(
            [(u, v), (u + blade * rng.uniform(-0.5, 0.5), v - blade)],
            rng.choice(((58, 120, 48), (132, 186, 84))),
            1 + 1.2 * near,
        )
    for _ in range(rng.randint(20, 50)):
        near = rng.uniform(0.1, 1)
        u, v, r = rng.random(), h + (1 - h) * near, 0.0015 + 0.0035 * near
        land.ellipse(u - r, v - r, u + r, v + r, rng.choice(((255, 255, 255), (255, 226, 110), (246, 170, 190))))


def _beach(view: View) -> None:
    rng, land, h = view.rng, view.land, view.horizon
    _sky(view, (66, 156, 232), (150, 208, 246), (234, 244, 246))
    _glow(view, (255, 244, 200), 0.035, 0.36, 170)
    _clouds(view, (255, 255, 255), rng.randint(1, 4))
    _ground(view, (236, 214, 160), (242, 222, 170), (222, 192, 132))
    _grain(view, (170, 130, 80), 0.42)
    shore = h + (1 - h) * rng.uniform(0.07, 0.12)
    wave = [(i / 24, shore + rng.uniform(-0.004, 0.006)) for i in range(25)]
    land.polygon([(0, h), *[(u, v + 0.014) for u, v in wave], (1, h)], (206, 186, 138))
    land.polygon([(0, h), *wave, (1, h)], vertical((36, 108, 184), (40, 146, 204), (110, 202, 214)))
    land.line(wave, (250, 252, 252), 3)
    for _ in range(60):
        u, t = rng.random(), rng.random()
        v, half = h + (shore - h) * t, 0.006 + 0.016 * t
        land.line([(u - half, v), (u + half, v)], (168, 220, 236), 0.6 + t)


def _desert(view: View) -> None:
    rng, h = view.rng, view.horizon
    _sky(view, (226, 140, 92), (246, 190, 126), (254, 230, 184))
    _glow(view, (255, 236, 180), 0.05, 0.5, 210)
    _ground(view, (226, 176, 112), (214, 154, 92), (178, 116, 66))
    _grain(view, (140, 84, 48), 0.4)
    _ridge(view, h + 0.004, 0.16 * rng.uniform(0.6, 1.1), 3, (206, 136, 100), (226, 170, 122))
    for _ in range(rng.randint(2, 4)):
        u, width, rise = rng.uniform(-0.1, 0.8), rng.uniform(0.25, 0.5), rng.uniform(0.04, 0.1)
        crest = u + width * rng.uniform(0.35, 0.6)
        view.upright.polygon(
            [(u, h + 0.006), (crest, h - rise), (crest + 0.02, h + 0.006)], vertical((240, 196, 132), (224, 170, 106))
        )
        view.upright.polygon(
            [(crest, h - rise), (u + width, h + 0.006), (crest - 0.04, h + 0.006)],
            vertical((190, 124, 78), (206, 146, 92)),
        )
    for _ in range(14):
        near = rng.random()
        u, v, half = rng.random(), h + (1 - h) * (0.08 + 0.9 * near), 0.03 + 0.1 * near
        curve = [(u - half + half * i / 4, v - 0.008 * near * (4 - abs(i - 4)) / 4) for i in range(9)]
        view.land.line(curve, (190, 132, 78), 1 + 1.5 * near)


def _snowfield(view: View) -> None:
    rng, land, h = view.rng, view.land, view.horizon
    _sky(view, (132, 158, 194), (186, 204, 224), (230, 236, 242))
    _ground(view, (212, 222, 236), (234, 240, 246), (246, 248, 252))
    _grain(view, (190, 206, 228), 0.55)
    for i in range(7):
        u, half, rise = (i * 3 % 7 + rng.random()) / 7, rng.uniform(0.2, 0.34), h * rng.uniform(0.3, 0.7)
        peak = (u, h - rise)
        view.upright.polygon(
            [peak, (u + half, h + 0.006), (u - half, h + 0.006)], horizontal((150, 166, 190), (112, 130, 160))
        )
        snow = [(0.34, 0.66), (0.16, 0.755), (0.0, 0.59), (-0.16, 0.745), (-0.34, 0.66)]
        zigzag = [(u + half * across, h - rise * up) for across, up in snow]
        view.upright.polygon([peak, *zigzag], horizontal((250, 252, 255), (214, 224, 238)))
    for _ in range(rng.randint(8, 18)):
        height = rng.uniform(0.05, 0.1)
        _conifer(view.upright, rng.random(), h + 0.008, height, height * 0.8, (74, 106, 104))
    for _ in range(170):
        u, v, r = rng.random(), rng.random(), rng.uniform(0.8, 2.6)
        land.ellipse(u - r / land.width, v - r / land.height, u + r / land.width, v + r / land.height, (255, 255, 255))


def _buildings(view: View, foot: float, walls: tuple[Colour, ...], panes: tuple[Colour, ...], lit: float) -> None:
    """A row of buildings; a share `lit` of the windows shows the panes' first colour."""
    rng, s, h = view.rng, view.upright, view.horizon
    u = -0.03
    while u < 1:
        width, top = rng.uniform(0.09, 0.2), foot - (h * rng.uniform(0.45, 0.92) + foot - h)
        wall = view.vary(rng.choice(walls))
        s.rect(u, top, u + width, foot, horizontal(lighter(wall, 0.14), darker(wall, 0.16)))
        s.rect(u - 0.004, top - 0.012, u + width + 0.004, top + 0.006, darker(wall, 0.25))
        columns, pitch = max(2, round(width / 0.04)), 0.045
        for row in range(max(1, int((foot - top - 0.06) / pitch))):
            for column in range(columns):
                left, v = u + width * (column + 0.22) / columns, top + 0.025 + row * pitch
                pane = panes[0] if rng.random() < lit else panes[1]
                s.rect(left, v, left + width * 0.56 / columns, v + pitch * 0.6, pane)
        u += width + rng.choice((0.0, 0.004, 0.02))


def _road(view: View, foot: float, kerb: Colour, paint: Colour) -> None:
    """Kerb along the buildings and a dashed line that runs to the vanishing point."""
    rng, land, h = view.rng, view.land, view.horizon
    land.rect(0, foot - 0.002, 1, foot + 0.02, vertical(lighter(kerb, 0.2), kerb))
    land.rect(0, foot + 0.02, 1, foot + 0.026, darker(kerb, 0.4))
    vanish = rng.uniform(0.35, 0.65)
    ahead = vanish + rng.uniform(-0.3, 0.3)

    def at(t: float, side: float) -> tuple[float, float]:
        return vanish + (ahead - vanish) * t + side * 0.022 * t, h + (1.05 - h) * t

    start, v = 0.0, (foot + 0.035 - h) / (1.05 - h)
    while v < 1:
        start, v = v, v * 1.22
        end = start + (v - start) * 0.6
        land.polygon([at(start, -1), at(start, 1), at(end, 1), at(end, -1)], paint)


def _street(view: View) -> None:
    _sky(view, (110, 160, 214), (178, 206, 232), (232, 234, 232))
    _clouds(view, (250, 250, 252), view.rng.randint(1, 4))
    _ground(view, (142, 142, 146), (120, 121, 126), (92, 93, 100))
    _grain(view, (60, 60, 66), 0.45)
    foot = view.foot(view.camera.farthest * 1.35)
    walls = ((186, 120, 96), (206, 186, 158), (146, 156, 170), (170, 148, 132), (120, 138, 152))
    _buildings(view, foot, walls, ((214, 234, 246), (108, 134, 160)), 0.5)
    _road(view, foot, (176, 174, 168), (236, 222, 150))


def _night(view: View) -> None:
    rng, land = view.rng, view.land
    _sky(view, (8, 12, 40), (24, 30, 78), (64, 62, 116))
    for _ in range(110):
        u, v, r = rng.random(), rng.random() * view.horizon, rng.choice((0.5, 0.7, 1.1))
        land.ellipse(
            u - r / land.width,
            v - r / land.height,
            u + r / land.width,
            v + r / land.height,
            rng.choice(((255, 255, 255), (196, 210, 255))),
        )
    _glow(view, (250, 244, 214), 0.04, 0.3, 110)
    _ground(view, (58, 58, 82), (46, 47, 68), (32, 33, 50))
    _grain(view, (88, 90, 120), 0.3)
    foot = view.foot(view.camera.farthest * 1.35)
    _buildings(view, foot, ((40, 42, 70), (30, 34, 60), (52, 46, 72)), ((250, 216, 128), (26, 28, 50)), 0.45)
    _road(view, foot, (84, 84, 106), (150, 146, 120))


def _room(view: View) -> None:
    rng, s = view.rng, view.upright
    wall = rng.choice(((226, 210, 188), (196, 214, 212), (220, 200, 204), (208, 212, 226), (218, 216, 190)))
    foot = view.foot(view.camera.farthest * 1.2)
    wood = view.vary((164, 112, 70), 0.25)
    view.land.rect(0, foot - 0.01, 1, 1, vertical(lighter(wood, 0.08), wood, darker(wood, 0.22)))
    vanish, h = rng.uniform(0.4, 0.6), view.horizon
    for i in range(-24, 25):
        spread = i * 0.055
        near, far = (1.02 - h), (foot - h)
        view.land.line(
            [(vanish + spread * far / 0.16, foot), (vanish + spread * near / 0.16, 1.02)], darker(wood, 0.3), 1.2
        )
    _grain(view, darker(wood, 0.5), 0.25)
    s.rect(
        0,
        0,
        1,
        foot,
        Gradient(3, (lighter(wall, 0.25), wall, darker(wall, 0.1), wall, darker(wall, 0.05), darker(wall, 0.2))),
    )
    height = foot * 0.5
    left, top = rng.uniform(0.06, 0.3), foot * 0.14
    width = rng.uniform(0.18, 0.26)
    s.rect(left - 0.014, top - 0.018, left + width + 0.014, top + height + 0.018, (250, 248, 244))
    s.rect(left, top, left + width, top + height, vertical((120, 182, 236), (206, 230, 246), (160, 196, 130)))
    s.rect(left + width / 2 - 0.005, top, left + width / 2 + 0.005, top + height, (250, 248, 244))
    s.rect(left, top + height / 2 - 0.005, left + width, top + height / 2 + 0.005, (250, 248, 244))
    frame, ft = rng.uniform(0.6, 0.76), foot * rng.uniform(0.16, 0.26)
    s.rect(frame, ft, frame + 0.16, ft + height * 0.7, (96, 66, 46))
    s.rect(
        frame + 0.012,
        ft + 0.014,
        frame + 0.148,
        ft + height * 0.7 - 0.014,
        vertical((250, 206, 150), (226, 140, 120), (90, 100, 140)),
    )
    s.ellipse(frame + 0.06, ft + 0.05, frame + 0.1, ft + 0.05 + 0.04 * s.width / s.height, (255, 238, 190))
    s.rect(0, foot - 0.03, 1, foot, vertical((252, 250, 246), (222, 218, 210)))


def _forest(view: View) -> None:
    rng, h = view.rng, view.horizon
    _sky(view, (150, 196, 206), (196, 222, 208), (232, 240, 214))
    _glow(view, (255, 250, 214), 0.02, 0.4, 170)
    _ground(view, (128, 146, 84), (92, 118, 64), (62, 86, 46))
    _grain(view, (40, 56, 30), 0.55)
    foot = view.foot(view.camera.farthest * 1.3)
    for row, (colour, share) in enumerate((((150, 180, 168), 0.75), ((104, 146, 122), 0.62), ((58, 104, 76), 0.5))):
        base = h + (foot - h) * (row + 1) / 3
        for i in range(16 - 3 * row):
            height = h * rng.uniform(share, share + 0.28)
            u = (i + rng.uniform(0.1, 0.9)) / (16 - 3 * row)
            _conifer(view.upright, u, base, height, height * 0.42, view.vary(colour, 0.14))
    for _ in range(120):
        near = rng.random() ** 0.8
        u, v = rng.random(), foot + (1 - foot) * near
        r = 0.002 + 0.005 * near
        view.land.ellipse(
            u - r, v - r * 0.6, u + r, v + r * 0.6, rng.choice(((150, 120, 62), (112, 140, 70), (176, 146, 84)))
        )


SETTINGS: dict[str, Setting] = {
    "meadow": Setting(
        "a green meadow under a blue sky", _meadow, ((196, 218, 226), 0.16), (255, 240, 240, 205), 0.42, "green"
    ),
    "beach": Setting("a sandy beach by the sea", _beach, ((226, 234, 236), 0.12), (255, 245, 245, 212), 0.38),
    "desert": Setting(
        "a desert with dunes under a hot sky", _desert, ((246, 206, 150), 0.2), (255, 238, 232, 196), 0.45, "orange"
    ),
    "snowfield": Setting(
        "a snowfield below snowy mountains", _snowfield, ((220, 230, 240), 0.24), (252, 242, 246, 222), 0.3, "white"
    ),
    "street": Setting(
        "a city street lined with buildings", _street, ((206, 214, 222), 0.14), (252, 238, 238, 200), 0.42
    ),
    "night": Setting("a street at night under the stars", _night, ((44, 48, 88), 0.3), (226, 214, 208, 170), 0.55),
    "room": Setting("a room with a wooden floor", _room, ((216, 204, 190), 0.06), (252, 236, 236, 198), 0.4),
    "forest": Setting(
        "a clearing in a pine forest", _forest, ((206, 222, 206), 0.18), (248, 234, 234, 196), 0.45, "green"
    ),
}


@dataclass(frozen=True)
class Backdrop:
    """A painted setting: RGB picture, L mask of its upright plane (255 where it covers), its distance in m."""

    image: Image.Image
    upright: Image.Image
    distance: float


def paint(setting: Setting, camera: Camera, rng: random.Random) -> Backdrop:
    view = View(camera, rng)
    setting.paint(view)
    picture = Image.alpha_composite(view.land.image, view.upright.image).convert("RGB")
    mask = view.upright.image.getchannel("A").reduce(OVERSAMPLING)
    return Backdrop(picture.reduce(OVERSAMPLING), mask, view.upright_distance)
