"""Priors of a scene without a model: its truth, made as wrong as the demo's experts are.

Detectors miss objects, move edges, box an object under the name of another one or at the wrong place; tags are missing
or false; a reader loses words or letters, or sees a letter where none is; near objects change places. How often is what
`python -m demo.captioner noise` measured of the experts that ship.
"""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from demo.captioner.perceived import Rows
from demo.shapes import CATEGORIES, SHAPES
from demo.signs import PANEL
from demo.truth import Condition, ObjectTruth, SceneTruth
from experts.readers.layout import reading_order

PARTLY, MOSTLY = 0.05, 0.3
"""Shares of an object that nearer ones hide, above which it counts as partly and as mostly hidden."""
Read = Literal["exact", "part", "wrong", "none"]


@dataclass(frozen=True)
class DetectorNoise:
    """How one detector errs.

    Attributes:
        missed: chance that an object gets no box: free, partly hidden, mostly hidden.
        jitter: scale of the Laplace error of an edge, share of the box's width or height.
        wild, wild_jitter: share of boxes whose edges are worse, and how much.
        twice: chance that a found object has a second box of its own name.
        also: chance that a found object is boxed under the name of another category, too, that is in the picture.
        renamed: chance that a found object is boxed under the name of a category that is not, and not under its own.
        loose: boxes a picture of a category that is there, where it is not.
        absent: boxes a picture of a category that is nowhere in it.
        scores, false_scores: range of the scores of right and of wrong boxes.
    """

    missed: tuple[float, float, float]
    jitter: float
    wild: float
    wild_jitter: float
    twice: float
    also: float
    renamed: float
    loose: float
    absent: float
    scores: tuple[float, float]
    false_scores: tuple[float, float]


@dataclass(frozen=True)
class NoiseModel:
    """How the demo's experts err; the defaults are their own figures (docs/training-the-demo.md).

    Attributes:
        missed_tags: chance that a category or the setting that is there is not tagged.
        false_tags: tags a picture of what is not there.
        read: how signs are read by condition: to the letter, a part of their words, with wrong letters, not at all.
        stray: lines a picture that are read where no sign is.
        depth: deviation of the logarithm of an object's nearness.
    """

    closed_set: DetectorNoise = DetectorNoise(
        missed=(0.002, 0.04, 0.14),
        jitter=0.013,
        wild=0.1,
        wild_jitter=0.06,
        twice=0.03,
        also=0.001,
        renamed=0.004,
        loose=0.007,
        absent=0.0,
        scores=(0.81, 0.97),
        false_scores=(0.51, 0.79),
    )
    open_set: DetectorNoise = DetectorNoise(
        missed=(0.07, 0.28, 0.36),
        jitter=0.045,
        wild=0.1,
        wild_jitter=0.13,
        twice=0.0,
        also=0.11,
        renamed=0.001,
        loose=0.29,
        absent=0.0,
        scores=(0.34, 0.90),
        false_scores=(0.21, 0.69),
    )
    missed_tags: float = 0.016
    false_tags: float = 0.013
    read: dict[Condition, dict[Read, float]] = field(
        default_factory=lambda: {
            "clean": {"exact": 0.993, "part": 0.003, "wrong": 0.002, "none": 0.002},
            "rotated": {"exact": 0.88, "part": 0.04, "wrong": 0.04, "none": 0.04},
            "blurred": {"exact": 0.37, "part": 0.06, "wrong": 0.05, "none": 0.52},
            "faint": {"exact": 0.47, "part": 0.24, "wrong": 0.01, "none": 0.28},
        }
    )
    stray: float = 0.14
    depth: float = 0.09


MEASURED = NoiseModel()
HARDER = replace(
    MEASURED,
    closed_set=replace(
        MEASURED.closed_set, missed=(0.05, 0.12, 0.25), twice=0.04, also=0.02, renamed=0.015, loose=0.04, absent=0.1
    ),
    open_set=replace(MEASURED.open_set, renamed=0.03, absent=0.15),
    missed_tags=0.05,
    false_tags=0.1,
    stray=0.2,
)
"""What the captioner learns from: the experts themselves box too few things that are not there to learn from."""

_STRAY = (*string.ascii_uppercase, *string.digits, *"odlizx", "口", "中", "80", "5.", "II", "A°", "MUN", "IOI")
"""The like of what is read where no sign is."""
_ALIKE = {"O": "0D", "0": "O", "I": "1L", "1": "I", "B": "8R", "8": "B", "S": "5", "G": "6C", "l": "I1", "i": "l1"}
_FAR_SHARE = 0.04
"""Nearness of what is infinitely far; the rest of the range goes with disparity."""


def noisy_priors(truth: SceneTruth, rng: random.Random, noise: NoiseModel = MEASURED) -> Rows:
    """Decided rows of the experts that the captioner's prompt shows: tags, closed_set, open_set, ocr, depth."""
    tags = _tags(truth, rng, noise)
    boxes = {
        "closed_set": _boxes(truth, rng, noise.closed_set, set(CATEGORIES)),
        "open_set": _boxes(truth, rng, noise.open_set, set(tags)),
    }
    near = _nearness(truth, rng, noise.depth)
    depths = [
        {"expert": expert, "anchor": row["anchor"], "nearness": near[place], "band": _band(near[place])}
        for expert, found in boxes.items()
        for row, place in found
    ]
    rows: Rows = {expert: {"boxes": [row for row, _ in found]} for expert, found in boxes.items()}
    rows["tags"] = {"tags": [{"tag": tag, "score": 0.99, "threshold": None} for tag in tags]}
    rows["ocr"] = {"lines": _lines(truth, rng, noise)}
    rows["depth"] = {"objects": sorted(depths, key=lambda one: -one["nearness"])}
    return {expert: {**row, "error": None} for expert, row in rows.items()}


def _tags(truth: SceneTruth, rng: random.Random, noise: NoiseModel) -> list[str]:
    """In any order: theirs goes by a score that says nothing here."""
    there = [*sorted({o.category for o in truth.objects}), truth.setting]
    tags = [tag for tag in there if rng.random() >= noise.missed_tags]
    if rng.random() < noise.false_tags:
        tags.append(rng.choice([c for c in CATEGORIES if c not in there]))
    rng.shuffle(tags)
    return tags


def _boxes(
    truth: SceneTruth, rng: random.Random, noise: DetectorNoise, names: set[str]
) -> list[tuple[dict[str, Any], int]]:
    """Rows of schemas.tables.BOX, best first, with the number of the object whose depth is read in each."""
    there = [o.category for o in truth.objects]
    present = sorted(set(there) & names)
    found: list[tuple[str, float, tuple[float, ...], int]] = []
    for i, item in enumerate(truth.objects):
        hidden = (item.occlusion > PARTLY) + (item.occlusion > MOSTLY)
        if rng.random() < noise.missed[hidden]:
            continue
        box = _fractions(item, truth)
        label = item.category
        if rng.random() < noise.renamed:
            label = _like(item.category, set(there), rng)
        if label in names or label not in there:
            found.append((label, _high(noise.scores, rng), _moved(box, noise, rng), i))
        others = [name for name in present if name != item.category]
        if others and rng.random() < noise.also:
            found.append((rng.choice(others), _low(noise.false_scores, rng), _moved(box, noise, rng), i))
        if rng.random() < noise.twice:
            found.append((label, _low(noise.false_scores, rng), _spread(box, 0.09, rng), i))
    if present and rng.random() < noise.loose:
        i = rng.randrange(len(truth.objects))
        box = _loose(_fractions(truth.objects[i], truth), rng)
        found.append((rng.choice(present), _low(noise.false_scores, rng), box, i))
    if rng.random() < noise.absent and truth.objects:
        label = rng.choice([c for c in CATEGORIES if c not in there])
        i = rng.randrange(len(truth.objects))
        found.append((label, _low(noise.false_scores, rng), _anywhere(label, truth, rng), i))
    found.sort(key=lambda one: -one[1])
    return [
        ({"label": label, "score": round(score, 3), **_corners(box), "anchor": anchor}, i)
        for anchor, (label, score, box, i) in enumerate(found)
    ]


def _like(category: str, there: set[str], rng: random.Random) -> str:
    """A category that is not there, rather one of a like shape."""
    others = [c for c in CATEGORIES if c not in there]
    aspect = _aspect(category)
    return min(rng.sample(others, min(3, len(others))), key=lambda c: abs(_aspect(c) - aspect))


def _aspect(category: str) -> float:
    shape = SHAPES.get(category)
    return shape.width / shape.height if shape else 1.3


def _moved(box: tuple[float, ...], noise: DetectorNoise, rng: random.Random) -> tuple[float, ...]:
    return _spread(box, noise.wild_jitter if rng.random() < noise.wild else noise.jitter, rng)


def _spread(box: tuple[float, ...], scale: float, rng: random.Random) -> tuple[float, ...]:
    sides = (box[2] - box[0], box[3] - box[1]) * 2
    return tuple(edge + side * _laplace(scale, rng) for edge, side in zip(box, sides, strict=True))


def _laplace(scale: float, rng: random.Random) -> float:
    return rng.choice((-1, 1)) * rng.expovariate(1 / scale) if scale else 0.0


def _high(bounds: tuple[float, float], rng: random.Random) -> float:
    """A score between bounds, rather a high one."""
    return rng.triangular(*bounds, bounds[1])


def _low(bounds: tuple[float, float], rng: random.Random) -> float:
    """A score between bounds, rather a low one."""
    return rng.triangular(*bounds, bounds[0])


def _loose(box: tuple[float, ...], rng: random.Random) -> tuple[float, ...]:
    """Over a part of the object and what is beside it."""
    width, height = box[2] - box[0], box[3] - box[1]
    x = box[0] + width * rng.uniform(-0.6, 0.6)
    y = box[1] + height * rng.uniform(-0.4, 0.4)
    return (x, y, x + width * rng.uniform(0.6, 1.3), y + height * rng.uniform(0.6, 1.3))


def _anywhere(category: str, truth: SceneTruth, rng: random.Random) -> tuple[float, ...]:
    """A place on the ground where such a thing might stand."""
    height = rng.uniform(0.12, 0.3)
    width = height * _aspect(category) * truth.height / truth.width
    foot = rng.uniform(truth.horizon / truth.height + 0.1, 0.95)
    left = rng.uniform(0.0, max(0.01, 1 - width))
    return (left, foot - height, left + width, foot)


def _fractions(item: ObjectTruth, truth: SceneTruth) -> tuple[float, ...]:
    x1, y1, x2, y2 = item.visible_box
    return (x1 / truth.width, y1 / truth.height, x2 / truth.width, y2 / truth.height)


def _corners(box: Sequence[float]) -> dict[str, float]:
    x1, y1, x2, y2 = (round(min(max(value, 0.0), 1.0), 4) for value in box)
    return dict(zip(("x1", "y1", "x2", "y2"), (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), strict=True))


def _nearness(truth: SceneTruth, rng: random.Random, deviation: float) -> list[float]:
    """Of each object, 0..1, by its disparity relative to that of the ground at the lower edge."""
    if not truth.objects:
        return []
    nearest = min(o.distance for o in truth.objects) * 0.8
    near = [nearest / o.distance * rng.lognormvariate(0, deviation) for o in truth.objects]
    return [round(min(_FAR_SHARE + (1 - _FAR_SHARE) * one, 1.0), 4) for one in near]


def _band(near: float) -> str:
    return "near" if near > 2 / 3 else "far" if near < 1 / 3 else "middle"


def _lines(truth: SceneTruth, rng: random.Random, noise: NoiseModel) -> list[dict[str, Any]]:
    """Rows of schemas.tables.TEXT_LINE in reading order."""
    said: list[tuple[str, np.ndarray]] = []
    for item in truth.objects:
        if item.text is None or item.condition is None:
            continue
        chances = noise.read[item.condition]
        lines = _read(_layout(item.text), rng.choices(list(chances), list(chances.values()))[0], rng)
        x1, y1, x2, y2 = item.full_box
        bottom = y1 + PANEL * (y2 - y1)
        for i, text in lines:
            middle = y1 + (i + 0.5) / len(_layout(item.text)) * (bottom - y1)
            said.append((text, _quad((x1 + x2) / 2, middle, (x2 - x1) * 0.7, (bottom - y1) * 0.25)))
    if rng.random() < noise.stray:
        place = _quad(*_off_signs(truth, rng), 0.03 * truth.width, 0.04 * truth.height)
        said.append((rng.choice(_STRAY), place))
    size = np.array([truth.width, truth.height])
    return [
        {
            "text": said[i][0],
            "score": round(rng.uniform(0.6, 1.0), 3),
            "polygon": np.clip(said[i][1] / size, 0, 1).round(4).flatten().tolist(),
        }
        for i in reading_order([quad for _, quad in said])
    ]


def _off_signs(truth: SceneTruth, rng: random.Random) -> tuple[float, float]:
    """A place in px where no sign is, as far as eight tries find one."""
    signs = [o.full_box for o in truth.objects if o.text is not None]
    for _ in range(8):
        x, y = rng.uniform(0.05, 0.95) * truth.width, rng.uniform(0.1, 0.95) * truth.height
        if not any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in signs):
            break
    return x, y


def _layout(text: str) -> list[str]:
    """A sign's lines: a word each, but the first two of three together (demo.signs.random_lettering)."""
    words = text.split()
    return words if len(words) <= 2 else [" ".join(words[:2]), " ".join(words[2:])]


def _read(lines: list[str], how: Read, rng: random.Random) -> list[tuple[int, str]]:
    """Which lines are read, and as what."""
    numbered = list(enumerate(lines))
    match how:
        case "exact":
            return numbered
        case "none":
            return []
        case "part" if len(lines) > 1:
            kept = rng.sample(numbered, rng.randint(1, len(lines) - 1))
            return sorted(kept)
        case "part":
            cut = rng.randint(1, max(1, len(lines[0]) // 2))
            return [(0, lines[0][cut:] if rng.random() < 0.5 else lines[0][:-cut])] if len(lines[0]) > cut else []
        case "wrong":
            i = rng.randrange(len(lines))
            return [(j, _misread(line, rng) if j == i else line) for j, line in numbered]


def _misread(text: str, rng: random.Random) -> str:
    """One letter lost, doubled, or taken for another."""
    i = rng.randrange(len(text))
    other = rng.choice(_ALIKE.get(text[i], string.ascii_uppercase if text[i].isupper() else string.ascii_lowercase))
    return text[:i] + rng.choice(("", text[i] * 2, other)) + text[i + 1 :]


def _quad(x: float, y: float, width: float, height: float) -> np.ndarray:
    """Corners (4, 2) in px, clockwise from the upper left, around a middle."""
    return np.array([[x, y]]) + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array([width, height]) / 2
