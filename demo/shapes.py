"""The object classes: how large each is and how it is drawn, lit from the upper left."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from demo.palette import Colour, darker, lighter, luminance
from demo.surface import Gradient, Radial, Surface, horizontal, vertical

WOOD: Colour = (126, 86, 54)
RUBBER: Colour = (44, 44, 52)
STEEL: Colour = (150, 156, 166)
GLASS = Gradient(2, ((226, 242, 252), (150, 196, 226), (150, 196, 226), (196, 224, 240)))
GLOW: Colour = (255, 244, 190)


@dataclass(frozen=True)
class Shape:
    """Width and height in m of a medium one, and the function that fills a surface with it."""

    width: float
    height: float
    draw: Callable[[Surface, Colour], None]


def _round_body(colour: Colour) -> Gradient:
    """The shading of an upright cylinder."""
    return horizontal(darker(colour, 0.18), lighter(colour, 0.28), colour, darker(colour, 0.22), darker(colour, 0.45))


def _ball(s: Surface, c: Colour) -> None:
    s.ellipse(0, 0, 1, 1, Radial(lighter(c, 0.26), darker(c, 0.58)))
    s.ellipse(0.26, 0.15, 0.4, 0.26, Radial(lighter(c, 0.9), lighter(c, 0.5), (0.5, 0.5)))


def _crate(s: Surface, c: Colour) -> None:
    front, top, side = c, lighter(c, 0.32), darker(c, 0.36)
    s.polygon([(0, 0.24), (0.72, 0.24), (0.72, 1), (0, 1)], vertical(lighter(front, 0.1), darker(front, 0.14)))
    s.polygon([(0, 0.24), (0.28, 0), (1, 0), (0.72, 0.24)], top)
    s.polygon([(0.72, 0.24), (1, 0), (1, 0.76), (0.72, 1)], vertical(side, darker(side, 0.25)))
    for v in (0.43, 0.62, 0.81):
        s.line([(0, v), (0.72, v)], darker(c, 0.3), s.height * 0.012)
    board = lighter(c, 0.2)
    s.polygon([(0.08, 0.86), (0.56, 0.3), (0.66, 0.34), (0.17, 0.92)], board)
    for u in (0.0, 0.63):
        s.rect(u, 0.24, u + 0.09, 1, vertical(board, darker(board, 0.12)))
    for v in (0.24, 0.91):
        s.rect(0, v, 0.72, v + 0.09, board)


def _cone(s: Surface, c: Colour) -> None:
    s.rect(0, 0.9, 1, 1, vertical(darker(c, 0.1), darker(c, 0.4)), 0.3)
    s.polygon([(0.45, 0), (0.55, 0), (0.88, 0.93), (0.12, 0.93)], _round_body(c))
    stripe: Colour = (246, 246, 244) if luminance(c) < 215 else (86, 90, 98)
    for top, bottom in ((0.26, 0.42), (0.58, 0.72)):
        s.polygon(
            [
                (0.45 - 0.355 * top, top),
                (0.55 + 0.355 * top, top),
                (0.55 + 0.355 * bottom, bottom),
                (0.45 - 0.355 * bottom, bottom),
            ],
            _round_body(stripe),
        )


def _barrel(s: Surface, c: Colour) -> None:
    heights = [i / 10 for i in range(11)]
    left = [(0.06 - 0.06 * math.sin(math.pi * t), 0.09 + 0.82 * t) for t in heights]
    bulge = left + [(1 - u, v) for u, v in reversed(left)]
    s.ellipse(0.06, 0.82, 0.94, 1, _round_body(darker(c, 0.1)))
    s.polygon(bulge, _round_body(c))
    for v in (0.24, 0.7):
        s.rect(0.015, v, 0.985, v + 0.06, _round_body(STEEL), 0.3)
    s.ellipse(0.06, 0, 0.94, 0.18, vertical(lighter(c, 0.45), lighter(c, 0.15)))
    s.ellipse(0.13, 0.03, 0.87, 0.16, vertical(darker(c, 0.25), c))


def _tree(s: Surface, c: Colour) -> None:
    s.polygon([(0.45, 0.5), (0.55, 0.5), (0.6, 1), (0.4, 1)], _round_body(WOOD))
    s.polygon([(0.48, 0.66), (0.66, 0.5), (0.69, 0.53), (0.52, 0.72)], WOOD)
    for u0, v0, u1, v1, dim in (
        (0.0, 0.22, 0.56, 0.6, 0.28),
        (0.42, 0.2, 1.0, 0.62, 0.34),
        (0.22, 0.36, 0.8, 0.68, 0.36),
        (0.12, 0.02, 0.8, 0.46, 0.0),
    ):
        leaf = darker(c, dim * 0.6)
        s.ellipse(u0, v0, u1, v1, Radial(lighter(leaf, 0.22), darker(leaf, 0.42)))
    for u, v, r in ((0.3, 0.12, 0.09), (0.5, 0.1, 0.07), (0.24, 0.26, 0.06), (0.44, 0.24, 0.08)):
        s.ellipse(u, v, u + 2 * r, v + 1.2 * r, lighter(c, 0.24))


def _house(s: Surface, c: Colour) -> None:
    roof: Colour = (132, 66, 54)
    s.rect(0.72, 0.06, 0.82, 0.32, horizontal((170, 96, 78), (120, 66, 56)))
    s.rect(0.06, 0.4, 0.94, 1, vertical(lighter(c, 0.16), darker(c, 0.14)))
    s.polygon([(0, 0.46), (0.5, 0.0), (1, 0.46)], vertical(lighter(roof, 0.16), darker(roof, 0.2)))
    s.polygon([(0.06, 0.46), (0.94, 0.46), (0.94, 0.5), (0.06, 0.5)], darker(c, 0.4))
    s.rect(0.41, 0.62, 0.59, 1, horizontal(lighter(WOOD, 0.12), darker(WOOD, 0.2)), 0.08)
    s.ellipse(0.54, 0.8, 0.57, 0.83, (240, 214, 120))
    for u in (0.13, 0.67):
        s.rect(u - 0.015, 0.575, u + 0.215, 0.8, (248, 246, 240))
        s.rect(u, 0.59, u + 0.2, 0.785, GLASS)
        s.line([(u + 0.1, 0.59), (u + 0.1, 0.785)], (248, 246, 240), s.height * 0.012)
        s.line([(u, 0.69), (u + 0.2, 0.69)], (248, 246, 240), s.height * 0.012)
    s.ellipse(0.44, 0.22, 0.56, 0.35, GLASS)


def _car(s: Surface, c: Colour) -> None:
    s.polygon(
        [(0.16, 0.46), (0.3, 0.06), (0.36, 0), (0.68, 0), (0.75, 0.06), (0.88, 0.46)], vertical(lighter(c, 0.3), c)
    )
    s.polygon([(0.24, 0.43), (0.345, 0.1), (0.5, 0.1), (0.5, 0.43)], GLASS)
    s.polygon([(0.54, 0.43), (0.54, 0.1), (0.68, 0.1), (0.79, 0.43)], GLASS)
    s.rect(0, 0.4, 1, 0.84, vertical(lighter(c, 0.24), c, darker(c, 0.34)), 0.35)
    s.line([(0.52, 0.46), (0.52, 0.78)], darker(c, 0.35), s.height * 0.012)
    s.rect(0.55, 0.52, 0.62, 0.56, lighter(c, 0.5), 0.5)
    s.ellipse(0.95, 0.5, 1.0, 0.63, GLOW)
    s.ellipse(0.0, 0.5, 0.04, 0.62, (190, 40, 40))
    for u in (0.13, 0.65):
        s.ellipse(u - 0.02, 0.53, u + 0.24, 1.0, darker(c, 0.6))
        s.ellipse(u, 0.57, u + 0.22, 1, RUBBER)
        s.ellipse(u + 0.06, 0.69, u + 0.16, 0.88, Radial((232, 234, 238), STEEL))


def _umbrella(s: Surface, c: Colour) -> None:
    s.rect(0.485, 0.06, 0.515, 0.98, horizontal((190, 190, 196), (70, 70, 78)))
    s.ellipse(0.46, 0.95, 0.54, 1, WOOD)
    rim, apex = 0.5, (0.5, 0.02)
    spokes = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    dome = [
        (0.5 - 0.5 * math.cos(math.pi * i / 24), rim - (rim - 0.02) * math.sin(math.pi * i / 24)) for i in range(25)
    ]
    s.polygon(dome, Radial(lighter(c, 0.3), darker(c, 0.35)))
    for left, right, dim in zip(spokes[:-1], spokes[1:], (0.0, 0.16, 0.0, 0.2, 0.08), strict=True):
        if dim:
            outline = [_rib(apex, (left, rim), i / 8) for i in range(9)]
            outline += [_rib(apex, (right, rim), i / 8) for i in range(8, -1, -1)]
            s.polygon(outline, vertical(darker(c, dim * 0.5), darker(c, dim * 1.8)))
        s.ellipse(left, rim - 0.045, right, rim + 0.045, darker(c, dim + 0.3))
    s.rect(0.49, 0, 0.51, 0.05, STEEL)


def _rib(apex: tuple[float, float], foot: tuple[float, float], t: float) -> tuple[float, float]:
    """A point on the quarter ellipse from the top of a dome to its rim."""
    angle = math.pi / 2 * t
    return apex[0] + (foot[0] - apex[0]) * math.sin(angle), foot[1] - (foot[1] - apex[1]) * math.cos(angle)


def _mug(s: Surface, c: Colour) -> None:
    s.ellipse(0.56, 0.2, 1, 0.8, Radial(c, darker(c, 0.5)))
    hollow = Surface(s.width, s.height)
    hollow.ellipse(0.64, 0.32, 0.9, 0.68, (0, 0, 0))
    s.cut(hollow)
    s.ellipse(0, 0.82, 0.76, 1, _round_body(darker(c, 0.12)))
    s.rect(0, 0.1, 0.76, 0.91, _round_body(c))
    s.ellipse(0, 0.01, 0.76, 0.19, vertical(lighter(c, 0.35), lighter(c, 0.6)))
    s.ellipse(0.05, 0.035, 0.71, 0.17, vertical((58, 34, 22), (118, 76, 46)))
    s.rect(0.13, 0.27, 0.19, 0.8, vertical(lighter(c, 0.55), lighter(c, 0.3)), 0.5)


def _robot(s: Surface, c: Colour) -> None:
    s.rect(0.485, 0.02, 0.515, 0.1, STEEL)
    s.ellipse(0.45, 0, 0.55, 0.055, Radial((255, 190, 170), (212, 56, 50)))
    for u in (0.25, 0.57):
        s.rect(u, 0.7, u + 0.18, 0.95, _round_body(STEEL))
        s.rect(u - 0.04, 0.92, u + 0.22, 1, vertical(c, darker(c, 0.45)), 0.4)
    for u in (0.0, 0.85):
        s.rect(u, 0.4, u + 0.15, 0.7, _round_body(darker(c, 0.1)), 0.5)
        s.ellipse(u, 0.66, u + 0.15, 0.75, Radial((222, 224, 230), STEEL))
    s.rect(0.42, 0.32, 0.58, 0.4, _round_body(STEEL))
    s.rect(0.16, 0.38, 0.84, 0.74, Gradient(2, (lighter(c, 0.3), c, c, darker(c, 0.36))), 0.2)
    s.rect(0.27, 0.46, 0.73, 0.62, vertical((52, 60, 78), (34, 40, 56)), 0.2)
    for i, lamp in enumerate(((240, 90, 80), (246, 210, 90), (110, 214, 130))):
        s.ellipse(0.33 + i * 0.13, 0.515, 0.41 + i * 0.13, 0.565, lamp)
    s.rect(0.2, 0.09, 0.8, 0.34, Gradient(2, (lighter(c, 0.4), c, c, darker(c, 0.3))), 0.3)
    for u in (0.31, 0.55):
        s.ellipse(u, 0.15, u + 0.14, 0.235, Radial((255, 255, 240), (250, 214, 110), (0.5, 0.5)))
        s.ellipse(u + 0.045, 0.178, u + 0.095, 0.208, RUBBER)
    s.rect(0.36, 0.275, 0.64, 0.295, RUBBER, 0.5)


SHAPES: dict[str, Shape] = {
    "ball": Shape(0.75, 0.75, _ball),
    "crate": Shape(0.9, 0.85, _crate),
    "cone": Shape(0.75, 1.0, _cone),
    "barrel": Shape(0.75, 1.02, _barrel),
    "tree": Shape(1.3, 1.95, _tree),
    "house": Shape(1.9, 1.65, _house),
    "car": Shape(2.0, 0.9, _car),
    "umbrella": Shape(1.4, 1.3, _umbrella),
    "mug": Shape(0.86, 0.76, _mug),
    "robot": Shape(0.86, 1.4, _robot),
}

SIGN = "sign"
CATEGORIES: tuple[str, ...] = (*SHAPES, SIGN)
"""Everything that can stand in a scene."""
