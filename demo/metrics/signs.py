"""Whether the text on a sign was read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from demo.signs import PANEL
from demo.truth import ObjectTruth, SceneTruth

MARGIN = 0.04
"""Share of a sign's height by which its panel may be exceeded, because a turned sign's box surrounds it."""


def sign_text(lines: Sequence[Mapping[str, Any]], sign: ObjectTruth, truth: SceneTruth) -> str:
    """What was read on a sign: the lines whose centre lies in its panel, joined by a space.

    Args:
        lines: rows of schemas.tables.TEXT_LINE, in reading order.
        sign: of `truth`, whose boxes are in px.
    """
    return " ".join(str(lines[i]["text"]) for i in lines_on(lines, sign, truth))


def lines_on(lines: Sequence[Mapping[str, Any]], sign: ObjectTruth, truth: SceneTruth) -> list[int]:
    """Numbers of the lines whose centre lies in a sign's panel; arguments as for `sign_text`."""
    x1, y1, x2, y2 = sign.full_box
    bottom = y1 + (PANEL + MARGIN) * (y2 - y1)
    found = []
    for i, line in enumerate(lines):
        x, y = np.reshape(line["polygon"], (4, 2)).mean(axis=0) * (truth.width, truth.height)
        if x1 <= x <= x2 and y1 <= y <= bottom:
            found.append(i)
    return found


def exact(read: str, true: str) -> bool:
    """Whether every letter was read, in its case; spaces do not count."""
    return _letters(read) == _letters(true)


def error_rate(read: str, true: str) -> float:
    """Character error rate: insertions, deletions and substitutions over the true letters; may exceed 1.

    Spaces do not count. 1 where nothing was read.

    Raises:
        ValueError: the true text has no letter.
    """
    one, other = _letters(read), _letters(true)
    if not other:
        raise ValueError("an error rate needs a true text")
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
        above = row
    return above[-1] / len(other)


def _letters(text: str) -> str:
    return "".join(text.split())
