"""The notes copied out: what there is to know without looking."""

from collections.abc import Sequence

from fusion.box_choice import choose_boxes
from fusion.evaluate.captioners.base import Captioned, Captioner, shown
from fusion.evaluate.section import PriorsCaptioner
from fusion.evaluate.truth import TruthRow
from fusion.prompt import PromptSection
from fusion.untrusted import clean


class CopiedNotes(Captioner):
    """The labels of the boxes that the prompt shows, the alt text, and every line of text in quotation marks.

    The alt text comes after the boxes, so that where both name a thing the list is read as if it named it once, with
    the alt text's colour.
    """

    def __init__(self, section: PriorsCaptioner, prompt: PromptSection) -> None:
        self._notes = section.notes
        self._prompt = section.prompt or prompt

    def caption(self, rows: Sequence[TruthRow]) -> list[Captioned]:
        return [Captioned(self._list(row)) for row in rows]

    def _list(self, row: TruthRow) -> str:
        alt_text, priors = shown(row, self._notes)
        labels = [box["label"] for box in choose_boxes(priors, self._prompt)]
        lines = [clean(line["text"], self._prompt.max_ocr_chars) for line in priors.lines or []]
        parts = [f"{label}." for label in labels]
        if alt_text:
            parts.append(f"{clean(alt_text, self._prompt.max_alt_chars)}.")
        quoted = [f'"{line}"' for line in lines[: self._prompt.max_ocr_lines] if line and '"' not in line]
        if quoted:
            parts.append(f"Text: {', '.join(quoted)}.")
        return " ".join(parts)
