"""Rows to learn captions from: a picture, what page and experts say of it, and a caption that is right.

A row is what `fusion.train` reads as `format: rows`.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from demo.alt_text import KINDS, AltText, alt_text
from demo.captioner.noise import HARDER, NoiseModel, noisy_priors
from demo.captioner.perceived import Rows
from demo.captions import dense_caption
from demo.truth import SceneTruth
from fusion.prompt import PromptSection

BARE = 0.15
"""Share of rows without any notes, so that the captioner also learns to look by itself."""
PROMPT = PromptSection(template="tuned_engine.v1", tags=True, depth=True, max_boxes=12, max_ocr_lines=8)
"""As `caption.prompt` of the demo's preset."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        caption: right, and without text that cannot be known: a tower that sees 160 px reads no sign.
        alt, priors: what the page and the experts say; None and empty in a bare row.
    """

    truth: SceneTruth
    caption: str
    alt: AltText | None
    priors: Rows

    def as_json(self, uid: str, image: str) -> dict[str, Any]:
        return {
            "uid": uid,
            "image": image,
            "caption": self.caption,
            "alt_text": self.alt.text if self.alt else None,
            "priors": self.priors,
        }


def rows(truth: SceneTruth, draws: int, noise: NoiseModel = HARDER, bare: float = BARE) -> Iterator[Row]:
    """`draws` rows of a scene, each with other errors; the same for the same arguments."""
    for draw in range(draws):
        rng = random.Random(f"row {truth.seed} {draw}")
        if rng.random() < bare:
            yield Row(truth, caption(truth, {}), None, {})
            continue
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        priors = noisy_priors(truth, rng, noise)
        yield Row(truth, caption(truth, priors), alt_text(truth, kind), priors)


def caption(truth: SceneTruth, priors: Rows) -> str:
    """The dense caption of a scene; of its signs it quotes those that the reader's lines hold to the letter."""
    lines = [line["text"] for line in priors["ocr"]["lines"]] if "ocr" in priors else []
    objects = tuple(o if o.text is None or text_given(o.text, lines) else replace(o, text=None) for o in truth.objects)
    return dense_caption(replace(truth, objects=objects))


def text_given(text: str, lines: list[str]) -> bool:
    """Whether lines hold a text to the letter, spaces aside, with nothing between its words."""
    return "".join(text.split()) in "".join("".join(lines).split())
