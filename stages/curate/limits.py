"""Limits on what the score experts measured: which rows stop, and what the ledger says of them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.ledger import Reason
from stages.base import POISON_DETAIL


@dataclass(frozen=True)
class Limit:
    """A bound on one expert's score; a row that has none, because the expert failed on it, stops as well.

    Attributes:
        expert: name of the expert, whose table is of schemas.tables.SCORE_PRIOR.
        setting: that holds the bound.
        bound: that a score may just reach; compared as float32, which is what scores are.
        least: whether scores below it stop, or those above it.
        reason: of the rows that it stops.
    """

    expert: str
    setting: str
    bound: float
    least: bool
    reason: Reason

    def stops(self, table: pa.Table) -> np.ndarray:
        """bool of (n,): the rows of the expert's table that go no further."""
        score = pc.fill_null(table.column("score"), float("nan")).to_numpy()
        bound = np.float32(self.bound)
        return ~(score >= bound) if self.least else ~(score <= bound)

    def why(self, score: float | None, error: str | None) -> tuple[Reason, str]:
        """Reason and detail for a row that stops."""
        if score is None:
            reason = Reason.POISON if error == POISON_DETAIL else Reason.EXPERT_FAILED
            return reason, f"perceive.{self.expert}: {error or 'no score'}"
        side = "below" if self.least else "above"
        return self.reason, f"{self.expert} {score:.4g} is {side} {self.setting} {self.bound:g}"


def stopped(limits: list[Limit], tables: dict[str, pa.Table], rows: int) -> np.ndarray:
    """int8 of (rows,): number of the first limit that stops a row, -1 where none does.

    Args:
        tables: by expert, all with the same `rows` rows.
    """
    first = np.full(rows, -1, np.int8)
    for number, limit in reversed(list(enumerate(limits))):
        first[limit.stops(tables[limit.expert])] = number
    return first
