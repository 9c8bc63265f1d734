"""What the experts say of the selected rows: measured tables in, priors at the settings' thresholds out."""

from typing import Any

from experts.base import Context, Prior
from experts.registry import EXPERTS
from stages.perceive import PerceiveSection


class DecidedPriors:
    """Reads the tables of the experts that look at selected rows.

    A setting marked `later` is applied here and nowhere else, so it is part of the fingerprint of whoever reads
    (`decisions`), and not of the expert's own stage.

    Attributes:
        experts: their names, each after those it needs.
        tables: the stages whose tables `of` takes rows of.
    """

    def __init__(self, section: PerceiveSection) -> None:
        self._experts = {name: EXPERTS[name](one) for name, one in section.experts("select").items()}
        self.experts = tuple(self._experts)
        self.tables = tuple(f"perceive.{name}" for name in self.experts)

    def decisions(self) -> dict[str, dict[str, Any]]:
        """Everything that decides beside the tables, by expert. Raises RequestError where a file is missing."""
        return {name: expert.decisions() for name, expert in self._experts.items()}

    def of(self, measured: dict[str, Prior]) -> dict[str, Prior]:
        """One image's priors by expert, from its rows by expert; the row of an expert that failed stays as it is."""
        decided: Context = {}
        for name, expert in self._experts.items():
            row = measured[name]
            decided[name] = row if row["error"] is not None else expert.decide(row, decided)
        return decided
