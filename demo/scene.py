"""One scene from one seed: a picture, what is true of it, and how far away everything is.

Every choice comes from `random.Random` and the font is Pillow's own, so that a seed gives the same pixels with the
same Pillow on any machine.
"""

import functools
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from demo.backgrounds import SETTINGS, Backdrop, Setting, paint
from demo.camera import Camera, random_camera
from demo.palette import OBJECT_COLOURS
from demo.shapes import SHAPES, SIGN
from demo.signs import HEIGHT as SIGN_HEIGHT
from demo.signs import WIDTH as SIGN_WIDTH
from demo.signs import Lettering, draw_sign, random_lettering
from demo.split import Split, split_of
from demo.surface import Surface
from demo.truth import Box, ObjectTruth, SceneTruth

SIZES = ((640, 512), (512, 680), (768, 512), (560, 560), (720, 540), (512, 640))
SIZE_WORDS = {"small": 0.74, "medium": 1.0, "large": 1.32}
OPAQUE = 128
"""A pixel belongs to an object where its alpha is at least this."""
SMALLEST, SMALLEST_SIGN = 0.11, 0.25
"""The root of a box's area is at least this share of the root of the picture's."""
MOST_HIDDEN = 0.4
"""The share of an object's box that nearer boxes may hide."""


@dataclass(frozen=True)
class Scene:
    """A picture and the truth of each of its pixels.

    Attributes:
        image: RGB.
        disparity: float32 (height, width), inverse distance in 1/m, 0 for the sky.
        owners: uint8 (height, width), i + 1 where `truth.objects[i]` is seen, 0 where none is.
    """

    image: Image.Image
    truth: SceneTruth
    disparity: np.ndarray
    owners: np.ndarray


@dataclass(frozen=True)
class Placed:
    """An object that has found its place.

    Attributes:
        box: x1, y1, x2, y2 in px; may leave the frame a little.
        span: width and height in px of the object itself, which a turned sign's box surrounds.
    """

    category: str
    colour: str
    size: str
    distance: float
    box: tuple[float, float, float, float]
    span: tuple[float, float]
    lettering: Lettering | None


def scene_size(seed: int) -> tuple[int, int]:
    """(width, height) in px of a seed's scene where none is asked for."""
    return random.Random(f"size {seed}").choice(SIZES)


def render(seed: int, size: tuple[int, int] | None = None) -> Scene:
    """Render the scene of a seed; its split decides which words its signs bear.

    Args:
        size: (width, height) in px; by default `scene_size(seed)`.
    """
    width, height = size or scene_size(seed)
    rng = random.Random(f"scene {seed} {width}x{height}")
    name = rng.choice(list(SETTINGS))
    setting = SETTINGS[name]
    camera = random_camera(rng, width, height)
    backdrop = paint(setting, camera, random.Random(f"backdrop {seed}"))
    placed = _place(camera, setting, split_of(seed), rng)
    return _paint_objects(seed, name, camera, backdrop, placed)


def _place(camera: Camera, setting: Setting, split: Split, rng: random.Random) -> list[Placed]:
    """From far to near, the order in which a painter needs them."""
    signs = rng.choices((0, 1, 2), (0.4, 0.48, 0.12))[0]
    wanted = [SIGN] * signs + [rng.choice(list(SHAPES)) for _ in range(rng.randint(2 - min(signs, 1), 4))]
    colours = [c for c in OBJECT_COLOURS if c != setting.unseen]
    placed: list[Placed] = []
    for category in wanted:
        for _ in range(60):
            candidate = _candidate(category, rng.choice(colours), camera, split, rng)
            if _fits(candidate, placed, camera):
                placed.append(candidate)
                break
    return sorted(placed, key=lambda p: -p.distance)


def _candidate(category: str, colour: str, camera: Camera, split: Split, rng: random.Random) -> Placed:
    sign = category == SIGN
    size = "medium" if sign else rng.choices(list(SIZE_WORDS), (0.25, 0.5, 0.25))[0]
    metres = (SIGN_WIDTH, SIGN_HEIGHT) if sign else (SHAPES[category].width, SHAPES[category].height)
    distance = camera.nearest * (camera.farthest / camera.nearest) ** rng.random()
    width, height = (camera.pixels(m * SIZE_WORDS[size], distance) for m in metres)
    lettering = random_lettering(rng, split) if sign else None
    turn = math.radians(abs(lettering.angle)) if lettering else 0.0
    across = width * math.cos(turn) + height * math.sin(turn)
    up = height * math.cos(turn) + width * math.sin(turn)
    middle, foot = rng.uniform(0.04, 0.96) * camera.width, camera.row(distance)
    box = (middle - across / 2, foot - up, middle + across / 2, foot)
    return Placed(category, colour, size, distance, box, (width, height), lettering)


def _fits(new: Placed, placed: list[Placed], camera: Camera) -> bool:
    """Large enough to be recognised, at most 15 % out of the frame (a sign not at all), not hidden too much."""
    x1, y1, x2, _ = new.box
    margin = 4 if new.lettering else -0.15 * (x2 - x1)
    if x1 < margin or x2 > camera.width - margin or y1 < 3:
        return False
    share = math.sqrt(new.span[0] * new.span[1] / (camera.width * camera.height))
    if share < (SMALLEST_SIGN if new.lettering else SMALLEST):
        return False
    if any(0.93 < new.distance / other.distance < 1.075 for other in placed):
        return False
    everything = [*placed, new]
    return all(_hidden(item, everything) <= (0.0 if item.lettering else MOST_HIDDEN) for item in everything)


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
        x += round((item.box[2] - item.box[0] - tile.width) / 2)
        y += round(item.box[3] - item.box[1] - tile.height)
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
                condition=item.lettering.condition if item.lettering else None,
            )
        )
    truth = SceneTruth(seed, name, camera.width, camera.height, camera.horizon, tuple(reversed(objects)))
    return Scene(image, truth, disparity, _near_first(labels, len(placed)))


def _near_first(labels: np.ndarray, count: int) -> np.ndarray:
    """Numbers given from far to near (1..count) turned round, as the truth lists objects; 0 stays."""
    return np.where(labels > 0, count + 1 - labels, 0).astype(np.uint8)


def _draw(item: Placed, setting: Setting, camera: Camera) -> Image.Image:
    """The object alone, RGBA, under the setting's light and haze."""
    tile = Surface(max(4, round(item.span[0])), max(4, round(item.span[1])))
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
    if item.lettering and item.lettering.blur:
        faded = faded.filter(ImageFilter.GaussianBlur(item.lettering.blur * picture.height))
    faded.putalpha(picture.getchannel("A"))
    if item.lettering and item.lettering.angle:
        return faded.rotate(item.lettering.angle, Image.Resampling.BICUBIC, expand=True)
    return faded


def _shade_ground(image: Image.Image, item: Placed, strength: float) -> None:
    """A soft shadow that falls to the right, with a dark core where the object touches the ground."""
    (width, _), foot = item.span, item.box[3]
    middle = (item.box[0] + item.box[2]) / 2
    for shift, reach, flat, share in ((0.14, 1.6, 0.3, 0.85), (0.03, 1.25, 0.15, 1.25)):
        size = (max(4, round(width * reach)), max(4, round(width * flat)))
        alpha = _soft_disc().resize(size, Image.Resampling.BILINEAR).point(_dimming(strength * share))
        image.paste((12, 14, 34), (round(middle + shift * width - size[0] / 2), round(foot - size[1] * 0.55)), alpha)


@functools.cache
def _soft_disc() -> Image.Image:
    """From 255 in the middle to 0 at the middle of the sides, where Pillow's radial gradient holds 181."""
    return Image.radial_gradient("L").point([round(255 * max(0.0, 1 - d / 180) ** 1.5) for d in range(256)])


@functools.lru_cache(maxsize=64)
def _dimming(share: float) -> list[int]:
    return [min(255, round(value * share)) for value in range(256)]


def _bounds(mask: np.ndarray) -> Box:
    """Around the true pixels of a mask that has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
