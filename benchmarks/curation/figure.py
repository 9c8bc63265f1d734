"""One line of the curation benchmark's table."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What was measured, and what it should be.

    Attributes:
        what: in words.
        value: None where this machine cannot measure it; the note says why.
        target: None where it is only reported.
        at_most: whether the target is an upper bound.
        unit: `x` for a ratio of CPU seconds, else a unit or nothing.
        against: what a ratio is held against.
        exact: a count that must hold on any machine, so that tests may assert it.
        note: what a reader must know beside it.
    """

    what: str
    value: float | None
    target: float | None = None
    at_most: bool = False
    unit: str = ""
    against: str = ""
    exact: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """None where nothing was measured or wanted."""
        if self.value is None or self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"reached": self.reached}
