"""What a hosted engine costs: a ledger line for every answer that was paid for, and a stop at the budget."""

import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion.engine import Answer
from schemas.section import Section, runtime

_REFRESH_S = 2.0


class SpendSection(Section):
    """Prices of a hosted engine. Nothing here decides what a caption says."""

    currency: str = runtime("USD", min_length=1, max_length=8, description="of the prices and the budget; only shown")
    input_per_million: float = runtime(ge=0, description="price of a million prompt tokens, images included")
    cached_per_million: float | None = runtime(
        None, ge=0, description="price of a million prompt tokens that the engine's cache served; null is as any other"
    )
    output_per_million: float = runtime(ge=0, description="price of a million tokens of answers")
    budget: float | None = runtime(
        None,
        gt=0,
        description="most that this run's captions may cost, all attempts together; nothing more is asked where the "
        "next answer might pass it. Answers that other workers wait for at that moment come on top",
    )

    def price(self, answer: Answer) -> float:
        """Of one answer, in `currency`."""
        cached = self.input_per_million if self.cached_per_million is None else self.cached_per_million
        fresh = answer.prompt_tokens - answer.cached_tokens
        per_million = fresh * self.input_per_million + answer.cached_tokens * cached
        return (per_million + answer.completion_tokens * self.output_per_million) / 1e6


class SpendLedger:
    """One worker's part of what the run has spent, in a file of its own beside those of the others.

    Several threads may use it.

    Args:
        folder: of all workers' files, which outlive everything.
        model: as the lines name it.
    """

    def __init__(self, section: SpendSection, folder: Path, model: str) -> None:
        self._section, self._folder, self._model = section, folder, model
        self._path = folder / f"{uuid.uuid4().hex}.jsonl"
        self._lock = threading.Lock()
        self._own, self._under_way = _Sum(), 0
        self._others: dict[Path, _Reading] = {}
        self._looked = float("-inf")

    def may_ask(self) -> bool:
        """Whether one more question fits into the budget; then the caller must `settle` it."""
        with self._lock:
            budget, spent = self._section.budget, self._sum()
            if budget is not None and spent.cost + spent.mean * (self._under_way + 1) > budget:
                return False
            self._under_way += 1
            return True

    def settle(self, shard: str, uid: str, answer: Answer | None) -> None:
        """Write down what an answer cost; None where none came."""
        with self._lock:
            self._under_way -= 1
            if answer is None:
                return
            cost = self._section.price(answer)
            self._own += _Sum(cost, 1)
            line = {
                "time": round(time.time(), 3),
                "shard": shard,
                "uid": uid,
                "model": self._model,
                "prompt_tokens": answer.prompt_tokens,
                "cached_tokens": answer.cached_tokens,
                "completion_tokens": answer.completion_tokens,
                "cost": cost,
                "currency": self._section.currency,
            }
            with self._path.open("a", encoding="utf-8") as f:
                f.write(json.dumps(line) + "\n")

    def spent(self) -> float:
        """By all workers so far."""
        with self._lock:
            return self._sum().cost

    def _sum(self) -> "_Sum":
        """All workers' answers, those of earlier attempts too; the others' as they stood a moment ago."""
        if time.monotonic() - self._looked > _REFRESH_S:
            self._looked = time.monotonic()
            for path in self._folder.glob("*.jsonl"):
                if path != self._path:
                    self._others.setdefault(path, _Reading(path)).go_on()
        return sum((one.sum for one in self._others.values()), self._own)


@dataclass(frozen=True)
class _Sum:
    """Answers, and what they cost together."""

    cost: float = 0.0
    answers: int = 0

    def __add__(self, other: "_Sum") -> "_Sum":
        return _Sum(self.cost + other.cost, self.answers + other.answers)

    @property
    def mean(self) -> float:
        return self.cost / self.answers if self.answers else 0.0


class _Reading:
    """A file that grows, each line of it read once."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.sum = _Sum()

    def go_on(self) -> None:
        with self._path.open("rb") as f:
            f.seek(self._offset)
            data = f.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for row in _rows(whole.splitlines(keepends=True)):
            self.sum += _Sum(row["cost"], 1)


def ledger_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of one file, as `SpendLedger.settle` writes them; one that a kill cut off is left out."""
    with path.open("rb") as f:
        yield from _rows(f)


def _rows(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            continue
        if isinstance(row, dict) and "cost" in row:
            yield row
