"""What a web page says of a picture: something right, something that says nothing, or something wrong."""

import random
from dataclasses import dataclass
from typing import Literal

from demo.backgrounds import SETTINGS
from demo.captions import name, with_article
from demo.palette import OBJECT_COLOURS
from demo.shapes import SHAPES
from demo.truth import SceneTruth

Kind = Literal["right", "vague", "wrong"]
KINDS: dict[Kind, float] = {"right": 0.5, "vague": 0.25, "wrong": 0.25}
"""How often a page's text is of which kind."""

PHRASES = ("{what} in a {where}", "{where}: {what}", "{what} ({where})", "photo of {what}, {where}", "{what}")
VAGUE = (
    "IMG_{n:04d}.jpg",
    "DSC{n:05d}",
    "photo {n}",
    "a nice day out",
    "free wallpaper download",
    "untitled-{n}",
    "our holiday, day {d}",
    "click to enlarge",
    "best of {year}",
    "new in our shop",
)


@dataclass(frozen=True)
class AltText:
    """A page's text.

    Attributes:
        claims: (colour, category) of the objects that it names, whether they are there or not.
    """

    text: str
    kind: Kind
    claims: tuple[tuple[str, str], ...] = ()


def alt_text(truth: SceneTruth, kind: Kind | None = None) -> AltText:
    """The text beside a scene, the same for the same scene; no positions, no depths.

    Args:
        kind: by default as often as `KINDS` says.
    """
    rng = random.Random(f"alt {truth.seed}")
    drawn = rng.choices(list(KINDS), list(KINDS.values()))[0]
    kind = kind or drawn
    if kind == "vague" or not truth.objects:
        text = rng.choice(VAGUE).format(n=rng.randint(1, 9999), d=rng.randint(2, 14), year=rng.randint(2004, 2021))
        return AltText(text, "vague")
    if kind == "wrong":
        return _wrong(truth, rng)
    named = truth.objects[: rng.randint(1, min(3, len(truth.objects)))]
    what = " and ".join(with_article(name(o)) for o in named)
    text = rng.choice(PHRASES).format(what=what, where=truth.setting)
    return AltText(text, "right", tuple((o.colour, o.category) for o in named))


def _wrong(truth: SceneTruth, rng: random.Random) -> AltText:
    """One or two objects of categories that are not there, in a setting that it is not."""
    there = {o.category for o in truth.objects}
    categories = rng.sample([c for c in SHAPES if c not in there], rng.randint(1, 2))
    claims = tuple((rng.choice(list(OBJECT_COLOURS)), category) for category in categories)
    what = " and ".join(with_article(f"{colour} {category}") for colour, category in claims)
    where = rng.choice([s for s in SETTINGS if s != truth.setting])
    return AltText(rng.choice(PHRASES).format(what=what, where=where), "wrong", claims)
