"""One caption to be checked, beside what the experts saw; what several checks need is worked out once."""

from dataclasses import dataclass
from functools import cached_property

from fusion.checks.reading import Reading, read
from fusion.checks.section import ChecksSection
from fusion.checks.seen import Seen
from fusion.evaluate.words import quotes
from fusion.priors import Priors


@dataclass(frozen=True)
class Caption:
    """A caption as the engine gave it."""

    text: str
    finish_reason: str


@dataclass(frozen=True)
class Case:
    """A caption, what the experts saw, and where the lines are drawn."""

    caption: Caption
    priors: Priors
    section: ChecksSection

    @cached_property
    def quotes(self) -> list[str]:
        """What stands in quotation marks."""
        return quotes(self.caption.text)

    @cached_property
    def seen(self) -> Seen:
        return Seen(self.priors, self.section)

    @cached_property
    def reading(self) -> Reading:
        """What is said of things; nothing where captions are to be in a language that is not read."""
        if self.section.language not in ("en", None):
            return Reading()
        return read(self.caption.text, self.seen.labels)
