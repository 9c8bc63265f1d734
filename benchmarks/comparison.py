"""One thing timed against another in the same process, in turns, on the same work."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from schemas.errors import ContractError

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Round:
    """Both sides once.

    Attributes:
        first: `measured` or `against`, whichever went first.
        measured_s, against_s: wall clock, in seconds.
        measured_cpu_s, against_cpu_s: CPU time of all threads of this process, in seconds.
    """

    first: str
    measured_s: float
    against_s: float
    measured_cpu_s: float
    against_cpu_s: float

    @property
    def ratio(self) -> float:
        """Rate of what is measured over the rate of what it is held against: 1 is as fast, 0.5 half as fast."""
        return self.against_s / self.measured_s

    @property
    def cpu_ratio(self) -> float:
        """The same for work per CPU second; says what a ratio hides where something else is the limit."""
        return self.against_cpu_s / self.measured_cpu_s


@dataclass(frozen=True)
class Comparison:
    """What was held against what.

    Attributes:
        measured, against: in words.
        amount: how many units each side did in each round.
        unit: plural, such as `images`.
    """

    measured: str
    against: str
    amount: int
    unit: str
    rounds: list[Round]

    def as_json(self) -> dict[str, Any]:
        """With the rates (units per second) and ratios of every round, and the median ratios."""
        rounds = [
            {
                **asdict(r),
                "measured_rate": self.amount / r.measured_s,
                "against_rate": self.amount / r.against_s,
                "ratio": r.ratio,
                "cpu_ratio": r.cpu_ratio,
            }
            for r in self.rounds
        ]
        return {
            "measured": self.measured,
            "against": self.against,
            "amount": self.amount,
            "unit": self.unit,
            "rounds": rounds,
            "median_ratio": statistics.median(r.ratio for r in self.rounds),
            "median_cpu_ratio": statistics.median(r.cpu_ratio for r in self.rounds),
        }


def compare(
    measured: Callable[[], Callable[[], A]],
    against: Callable[[], Callable[[], B]],
    same: Callable[[A, B], bool],
    rounds: int,
) -> list[Round]:
    """Time both sides in every round, each going first in every other one, after once untimed (imports, caches).

    Args:
        measured, against: make a side ready and return what is timed.
        same: whether both sides did the same work, by what they returned.

    Raises:
        ContractError: they did not, so that a ratio would mean nothing.
    """
    measured()()
    against()()
    done = []
    for number in range(rounds):
        if number % 2 == 0:
            first = "measured"
            ours, ours_s, ours_cpu_s = _timed(measured())
            theirs, theirs_s, theirs_cpu_s = _timed(against())
        else:
            first = "against"
            theirs, theirs_s, theirs_cpu_s = _timed(against())
            ours, ours_s, ours_cpu_s = _timed(measured())
        if not same(ours, theirs):
            raise ContractError("the two sides of the benchmark gave different results; their speeds do not compare")
        done.append(Round(first, ours_s, theirs_s, ours_cpu_s, theirs_cpu_s))
    return done


def _timed(work: Callable[[], A]) -> tuple[A, float, float]:
    """What `work` returned, its wall clock and its CPU time, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu
