"""Rows to learn captions from: a picture, what page and experts say of it, and a caption that is right; or a caption
with faults, what the checks find, and the caption as it is better.

A row is what `fusion.train` reads as `format: rows`.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from demo.alt_text import KINDS, AltText, alt_text
from demo.captioner.faults import Draft, plant
from demo.captioner.noise import HARDER, NoiseModel, noisy_priors
from demo.captioner.perceived import Rows
from demo.captioner.repairing import faults, repaired
from demo.captions import Told, told
from demo.truth import SceneTruth
from fusion.checks import Finding
from fusion.priors import Priors
from fusion.prompt import PromptSection

BARE = 0.15
"""Share of rows without any notes, so that the captioner also learns to look by itself."""
PROMPT = PromptSection(template="tuned_engine.v1", tags=True, depth=True, max_boxes=12, max_ocr_lines=8)
"""As `caption.prompt` of the demo's preset."""
_RIGHT = 0.6
"""Share of the repairs whose first caption is right, and only the notes are against it: most findings come so."""
_TRIES = 12
"""Draws of notes for a right caption in which the checks find nothing, after which faults are planted."""


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        caption: right, and without text that cannot be known: a tower that sees 160 px reads no sign.
        alt, priors: what the page and the experts say; None and empty in a bare row.
        first, findings: of a repair: the caption before it, and what the checks say of that. Then `caption` says what
            the checks want, which is not always right.
    """

    truth: SceneTruth
    caption: str
    alt: AltText | None
    priors: Rows
    first: str | None = None
    findings: tuple[Finding, ...] = ()

    def as_json(self, uid: str, image: str) -> dict[str, Any]:
        row = {
            "uid": uid,
            "image": image,
            "caption": self.caption,
            "alt_text": self.alt.text if self.alt else None,
            "priors": self.priors,
        }
        found = [{"kind": str(one.kind), "detail": one.detail} for one in self.findings]
        return row if self.first is None else row | {"first": self.first, "findings": found}


def rows(
    truth: SceneTruth, draws: int, noise: NoiseModel = HARDER, bare: float = BARE, repairs: float = 0.0
) -> Iterator[Row]:
    """`draws` rows of a scene, each with other errors; the same for the same arguments.

    Args:
        bare: share of rows without notes.
        repairs: share of the others that are repairs, where the scene gives occasion.
    """
    for draw in range(draws):
        rng = random.Random(f"row {truth.seed} {draw}")
        if rng.random() < bare:
            yield Row(truth, caption(truth, {}), None, {})
            continue
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        if repairs and rng.random() < repairs and (row := _repair(truth, rng, noise, alt_text(truth, kind))):
            yield row
            continue
        priors = noisy_priors(truth, rng, noise)
        yield Row(truth, caption(truth, priors), alt_text(truth, kind), priors)


def _repair(truth: SceneTruth, rng: random.Random, noise: NoiseModel, alt: AltText) -> Row | None:
    """Notes are drawn until the checks find something; None where nothing is found that could be repaired."""
    right = rng.random() < _RIGHT
    for tries in range(2 * _TRIES):
        priors = noisy_priors(truth, rng, noise)
        own = _told(truth, priors)
        draft = Draft(own, own.text()) if right and tries < _TRIES else plant(own, rng)
        seen = Priors.of(priors)
        findings = faults(draft.text, seen, draft.finish_reason)
        if not findings:
            continue
        better = repaired(draft.told, truth, priors).text()
        if len(faults(better, seen)) < len(findings):
            return Row(truth, better, alt, priors, draft.text, tuple(findings))
    return None


def caption(truth: SceneTruth, priors: Rows) -> str:
    """The dense caption of a scene; of its signs it quotes those that the reader's lines hold to the letter."""
    return _told(truth, priors).text()


def _told(truth: SceneTruth, priors: Rows) -> Told:
    lines = [line["text"] for line in priors["ocr"]["lines"]] if "ocr" in priors else []
    objects = tuple(o if o.text is None or text_given(o.text, lines) else replace(o, text=None) for o in truth.objects)
    return told(replace(truth, objects=objects))


def text_given(text: str, lines: list[str]) -> bool:
    """Whether lines hold a text to the letter, spaces aside, with nothing between its words."""
    return "".join(text.split()) in "".join("".join(lines).split())
