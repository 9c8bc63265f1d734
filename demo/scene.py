"""One scene from one seed: a picture, what is true of it, and how far away everything is.

Every choice comes from `random.Random` and the font is Pillow's own, so that a seed gives the same pixels with the
same Pillow on any machine.
"""

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from demo.backgrounds import SETTINGS, Backdrop, Setting, paint
from demo.camera import Camera, random_camera
from demo.palette import OBJECT_COLOURS
from demo.shapes import SHAPES
from demo.signs import HEIGHT as SIGN_HEIGHT
from demo.signs import WIDTH as SIGN_WIDTH
from demo.signs import Lettering, draw_sign, random_lettering
from demo.surface import Surface
from demo.truth import Box, ObjectTruth, SceneTruth

SIZES = ((640, 512), (512, 680), (768, 512), (560, 560), (720, 540), (512, 640))
SIZE_WORDS = {"small": 0.74, "medium": 1.0, "large": 1.32}
OPAQUE = 128
"""A pixel belongs to an object where its alpha is at least this."""


@dataclass(frozen=True)
class Scene:
    """`image` is RGB; `disparity` is float32 (height, width), inverse distance in 1/m, 0 for the sky."""

    image: Image.Image
    truth: SceneTruth
    disparity: np.ndarray


@dataclass(frozen=True)
class Placed:
    """An object that has found its place; `box` is x1, y1, x2, y2 in px and may leave the frame a little."""

    category: str
    colour: str
    size: str
    distance: float
    box: tuple[float, float, float, float]
    lettering: Lettering | None


def scene_size(seed: int) -> tuple[int, int]:
    """(width, height) in px of a seed's scene where none is asked for."""
    return random.Random(f"size {seed}").choice(SIZES)


def render(seed: int, size: tuple[int, int] | None = None) -> Scene:
    """Render the scene of a seed.

    Args:
        size: (width, height) in px; by default `scene_size(seed)`.
    """
    width, height = size or scene_size(seed)
    rng = random.Random(f"scene {seed} {width}x{height}")
    name = rng.choice(list(SETTINGS))
    setting = SETTINGS[name]
    camera = random_camera(rng, width, height)
    backdrop = paint(setting, camera, random.Random(f"backdrop {seed}"))
    placed = _place(camera, setting, rng)
    return _paint_objects(seed, name, camera, backdrop, placed)


def _place(camera: Camera, setting: Setting, rng: random.Random) -> list[Placed]:
    """From far to near, the order in which a painter needs them."""
    signs = rng.choices((0, 1, 2), (0.36, 0.5, 0.14))[0]
    wanted = ["sign"] * signs + [rng.choice(list(SHAPES)) for _ in range(rng.randint(2 - min(signs, 1), 6))]
    colours = [c for c in OBJECT_COLOURS if c != setting.unseen]
    placed: list[Placed] = []
    for category in wanted:
        for _ in range(40):
            candidate = _candidate(category, rng.choice(colours), camera, rng)
            if _fits(candidate, placed, camera):
                placed.append(candidate)
                break
    return sorted(placed, key=lambda p: -p.distance)


def _candidate(category: str, colour: str, camera: Camera, rng: random.Random) -> Placed:
    sign = category == "sign"
    size = "medium" if sign else rng.choices(list(SIZE_WORDS), (0.25, 0.5, 0.25))[0]
    metres = (SIGN_WIDTH, SIGN_HEIGHT) if sign else (SHAPES[category].width, SHAPES[category].height)
    reach = camera.nearest * 2 if sign else camera.farthest
    distance = camera.nearest * (reach / camera.nearest) ** rng.random()
    width, height = (camera.pixels(m * SIZE_WORDS[size], distance) for m in metres)
    middle, foot = rng.uniform(0.04, 0.96) * camera.width, camera.row(distance)
    box = (middle - width / 2, foot - height, middle + width / 2, foot)
    return Placed(category, colour, size, distance, box, random_lettering(rng) if sign else None)


def _fits(new: Placed, placed: list[Placed], camera: Camera) -> bool:
    """Whole signs, objects at most 15 % out of the frame, and no box hidden by more than half.

    Of the pixels of what is wide at its foot (a cone) three quarters may then be hidden.
    """
    x1, y1, x2, _ = new.box
    margin = 4 if new.lettering else -0.15 * (x2 - x1)
    if x1 < margin or x2 > camera.width - margin or y1 < 3:
        return False
    if any(0.93 < new.distance / other.distance < 1.075 for other in placed):
        return False
    everything = [*placed, new]
    return all(_hidden(item, everything) <= (0.0 if item.lettering else 0.5) for item in everything)


def _hidden(item: Placed, others: list[Placed]) -> float:
    """An upper bound of the share of `item`'s box that nearer objects' boxes hide."""
    area = (item.box[2] - item.box[0]) * (item.box[3] - item.box[1])
    return sum(_overlap(item.box, other.box) for other in others if other.distance < item.distance) / area


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _paint_objects(seed: int, name: str, camera: Camera, backdrop: Backdrop, placed: list[Placed]) -> Scene:
    setting, image = SETTINGS[name], backdrop.image
    ids = Image.new("L", image.size)
    disparity = camera.ground_disparity()
    disparity[np.asarray(backdrop.upright) >= OPAQUE] = 1 / backdrop.distance
    drawn: list[tuple[Box, int]] = []
    for number, item in enumerate(placed, 1):
        x, y = round(item.box[0]), round(item.box[1])
        tile = _draw(item, setting, camera)
        _shade_ground(image, item, setting.shadow)
        solid = tile.getchannel("A").point(lambda a: 255 if a >= OPAQUE else 0)
        image.paste(tile.convert("RGB"), (x, y), tile.getchannel("A"))
        alone = Image.new("L", image.size)
        alone.paste(255, (x, y), solid)
        ids.paste(number, (0, 0), alone)
        left, top, right, bottom = solid.getbbox() or (0, 0, 0, 0)
        drawn.append(((x + left, y + top, x + right, y + bottom), alone.histogram()[255]))
    labels = np.asarray(ids)
    counts = ids.histogram()
    objects = []
    for number, (item, (full_box, pixels)) in enumerate(zip(placed, drawn, strict=True), 1):
        here = labels == number
        disparity[here] = 1 / item.distance
        objects.append(
            ObjectTruth(
                category=item.category,
                colour=item.colour,
                size=item.size,
                full_box=full_box,
                visible_box=_bounds(here),
                occlusion=round(1 - counts[number] / pixels, 4),
                distance=round(item.distance, 3),
                text=item.lettering.text if item.lettering else None,
            )
        )
    truth = SceneTruth(seed, name, camera.width, camera.height, camera.horizon, tuple(reversed(objects)))
    return Scene(image, truth, disparity)


def _draw(item: Placed, setting: Setting, camera: Camera) -> Image.Image:
    """The object alone, RGBA, under the setting's light and haze."""
    tile = Surface(max(4, round(item.box[2] - item.box[0])), max(4, round(item.box[3] - item.box[1])))
    colour = OBJECT_COLOURS[item.colour]
    if item.lettering:
        draw_sign(tile, colour, item.lettering)
    else:
        SHAPES[item.category].draw(tile, colour)
    tile.light(setting.light)
    picture = tile.finished()
    haze, strength = setting.haze
    share = strength * (item.distance - camera.nearest) / (camera.farthest - camera.nearest)
    faded = Image.blend(picture.convert("RGB"), Image.new("RGB", picture.size, haze), max(0.0, share))
    faded.putalpha(picture.getchannel("A"))
    return faded


def _shade_ground(image: Image.Image, item: Placed, strength: float) -> None:
    """A soft shadow that falls to the right, with a dark core where the object touches the ground."""
    width, foot = item.box[2] - item.box[0], item.box[3]
    middle = (item.box[0] + item.box[2]) / 2
    for shift, reach, flat, share in ((0.14, 1.6, 0.3, 0.85), (0.03, 1.25, 0.15, 1.25)):
        size = (max(4, round(width * reach)), max(4, round(width * flat)))
        distance = Image.radial_gradient("L").resize(size, Image.Resampling.BILINEAR)
        alpha = distance.point([round(255 * strength * share * _falloff(d)) for d in range(256)])
        image.paste((12, 14, 34), (round(middle + shift * width - size[0] / 2), round(foot - size[1] * 0.55)), alpha)


def _falloff(distance: int) -> float:
    """From 1 in the middle of Pillow's radial gradient to 0 at the middle of its sides, where it holds 181."""
    return max(0.0, 1 - distance / 180) ** 1.5


def _bounds(mask: np.ndarray) -> Box:
    """Around the true pixels of a mask that has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
