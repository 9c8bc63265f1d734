"""What every captioner offers: captions of rows, in their order."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusion.evaluate.section import Shown
from fusion.evaluate.truth import TruthRow
from fusion.priors import Priors
from fusion.prompt import Messages, Prompt
from schemas.errors import RequestError


@dataclass(frozen=True)
class Captioned:
    """One caption.

    Attributes:
        failure: why there is none; it is judged as an empty one.
    """

    text: str
    failure: str | None = None


class Captioner(ABC):
    """Where captions come from."""

    @abstractmethod
    def caption(self, rows: Sequence[TruthRow]) -> list[Captioned]:
        """One for each row. Raises RequestError, SetupError."""


def shown(row: TruthRow, notes: Shown) -> tuple[str | None, Priors]:
    """What a captioner is given of a row: alt text and priors."""
    alt_text = row.alt_text if notes in ("everything", "alt_text") else None
    return alt_text, row.seen() if notes in ("everything", "priors") else Priors()


def messages(row: TruthRow, notes: Shown, prompt: Prompt) -> Messages:
    return prompt.render(*shown(row, notes))


def picture_file(row: TruthRow, images: Path) -> Path:
    """Raises RequestError where the row has no picture or it is not there."""
    if row.image is None:
        raise RequestError(f"The row {row.uid} has no `image`, which is needed to caption it. Add its path.")
    path = images / row.image
    if not path.is_file():
        raise RequestError(f"The picture {path} of row {row.uid} is not there. Look at evaluate.images and the path.")
    return path
