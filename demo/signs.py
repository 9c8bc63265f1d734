"""Signs: a panel on two posts with one to three words of text."""

import functools
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageDraw, ImageFont

from demo.palette import Colour, darker, lighter, luminance, mix
from demo.split import Split, split_of_word
from demo.surface import Surface, horizontal, vertical
from demo.truth import Condition

WIDTH, HEIGHT = 1.7, 1.3
"""Of a sign in m, posts included."""
PANEL = 0.66
"""Share of the height that the panel takes."""


CONDITIONS: dict[Condition, float] = {"clean": 0.7, "rotated": 0.1, "blurred": 0.1, "faint": 0.1}
"""How often a sign's lettering is in which condition."""
_INVENTED = 0.35
"""Share of words that no dictionary holds, so that text can be read or copied but not guessed."""
_ONSETS = (*"bcdfgklmnprstvz", "br", "cl", "dr", "gr", "pl")
_VOWELS = "aeiou"
_CODAS = ("", "l", "m", "n", "s", "x")


@dataclass(frozen=True)
class Lettering:
    """What a sign says, line by line, and how well that can be read.

    Attributes:
        angle: by which the sign is turned, degrees counter-clockwise; 0 but where `condition` is rotated.
        blur: standard deviation of its blur as a fraction of the sign's height.
        fading: share 0..1 of the ink that has gone.
    """

    lines: tuple[str, ...]
    condition: Condition = "clean"
    angle: float = 0.0
    blur: float = 0.0
    fading: float = 0.0

    @property
    def text(self) -> str:
        return " ".join(self.lines)


@functools.cache
def words(split: Split | None = None) -> tuple[str, ...]:
    """The word list of the world, plain lower-case English; only a split's own where one is named."""
    listed = (Path(__file__).parent / "words.txt").read_text(encoding="ascii").split()
    return tuple(word for word in listed if split in (None, split_of_word(word)))


def random_word(rng: random.Random, split: Split) -> str:
    """An English or an invented word, lower case, that no other split's signs bear."""
    if rng.random() >= _INVENTED:
        return rng.choice(words(split))
    while True:
        syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(2))
        word = "".join(syllables)
        if len(word) <= 8 and split_of_word(word) == split:
            return word


def random_lettering(rng: random.Random, split: Split) -> Lettering:
    """One to three words, sometimes a number, upper case or title case; three signs in ten are hard to read."""
    parts = [random_word(rng, split) for _ in range(rng.choices((1, 2, 3), (3, 4, 1))[0])]
    if rng.random() < 0.2:
        parts.append(str(rng.randint(1, 999)))
    parts = [p.upper() for p in parts] if rng.random() < 0.6 else [p.title() for p in parts]
    if len(parts) > 2:
        parts = [" ".join(parts[:2]), " ".join(parts[2:])]
    condition = rng.choices(list(CONDITIONS), list(CONDITIONS.values()))[0]
    return Lettering(
        lines=tuple(parts),
        condition=condition,
        angle=rng.choice((-1, 1)) * rng.uniform(10, 30) if condition == "rotated" else 0.0,
        blur=rng.uniform(0.012, 0.032) if condition == "blurred" else 0.0,
        fading=rng.uniform(0.72, 0.92) if condition == "faint" else 0.0,
    )


@functools.lru_cache(maxsize=128)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own scalable font, so that no machine's fonts decide what a picture looks like."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("this Pillow was built without FreeType, so signs cannot be lettered; install a stock wheel")
    return font


def draw_sign(s: Surface, colour: Colour, lettering: Lettering) -> None:
    wood: Colour = (118, 88, 64)
    for u in (0.16, 0.78):
        s.rect(u, 0.5, u + 0.06, 1, horizontal(lighter(wood, 0.2), darker(wood, 0.3)))
    s.rect(0, 0, 1, PANEL, darker(colour, 0.4), 0.1)
    border: Colour = (250, 250, 246) if luminance(colour) < 200 else (70, 74, 84)
    s.rect(0.012, 0.014, 0.988, PANEL - 0.03, border, 0.1)
    s.rect(0.03, 0.036, 0.97, PANEL - 0.054, vertical(lighter(colour, 0.1), darker(colour, 0.1)), 0.08)
    ink: Colour = (252, 252, 250) if luminance(colour) < 165 else (30, 34, 46)
    _letter(s, lettering, mix(ink, colour, lettering.fading))


def _letter(s: Surface, lettering: Lettering, ink: Colour) -> None:
    """As large as the panel allows, lines centred; a stroke makes the letters bold."""
    width, height = s.image.width * 0.86, s.image.height * (PANEL - 0.14)
    size = int(height / len(lettering.lines) * 0.82)
    widest = max(_font(size).getlength(line) for line in lettering.lines)
    size = max(6, min(size, int(size * width / widest)))
    draw, font, stroke = ImageDraw.Draw(s.image), _font(size), max(1, size // 30)
    middle = s.image.height * (PANEL - 0.02) / 2
    for i, line in enumerate(lettering.lines):
        row = middle + (i - (len(lettering.lines) - 1) / 2) * size * 1.08
        draw.text((s.image.width / 2, row), line, ink, font, anchor="mm", stroke_width=stroke, stroke_fill=ink)
