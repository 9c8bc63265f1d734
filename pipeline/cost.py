"""`densefusion cost`: what the captions of a run have cost, by the lines that its workers wrote for every answer."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import load_run
from pipeline.storage import Storage, open_storage
from pipeline.store import Store
from stages.spend import ledger_lines

STAGE = "caption"


@dataclass
class _Bill:
    """Answers of one model in one currency."""

    answers: int = 0
    images: set[bytes] = field(default_factory=set)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def add(self, line: dict[str, Any]) -> None:
        self.answers += 1
        self.images.add(bytes.fromhex(line["uid"]))
        self.prompt_tokens += line["prompt_tokens"]
        self.cached_tokens += line["cached_tokens"]
        self.completion_tokens += line["completion_tokens"]
        self.cost += line["cost"]


def cost_of(location: str) -> dict[str, Any]:
    """What was paid for, whatever became of it, as `cost --json` prints it; others rely on this shape.

    Captions are those that are committed now; images are those that a model was asked about, also where the answer was
    rejected since. Costs are in the currency that the configuration named at the time.

    Raises:
        RequestError: there is no run there.
    """
    config, storage = load_run(location), open_storage(location)
    bills: dict[tuple[str, str], _Bill] = defaultdict(_Bill)
    for line in _lines(storage):
        bills[line["model"], line["currency"]].add(line)
    captions = sum(record.rows_out for record in Store(storage).commits(STAGE).values())
    spent: dict[str, float] = defaultdict(float)
    for (_, currency), bill in bills.items():
        spent[currency] += bill.cost
    spend = config.caption.spend
    return {
        "run": location,
        "captions": captions,
        "models": [
            {
                "model": model,
                "currency": currency,
                "answers": bill.answers,
                "images": len(bill.images),
                "prompt_tokens": bill.prompt_tokens,
                "cached_tokens": bill.cached_tokens,
                "completion_tokens": bill.completion_tokens,
                "cost": bill.cost,
                "per_thousand_images": 1000 * bill.cost / len(bill.images),
            }
            for (model, currency), bill in sorted(bills.items())
        ],
        "total": [
            {
                "currency": currency,
                "cost": cost,
                "per_thousand_captions": 1000 * cost / captions if captions else None,
            }
            for currency, cost in sorted(spent.items())
        ],
        # The budget counts all that was spent, as the workers do.
        "budget": None
        if spend is None or spend.budget is None
        else {
            "currency": spend.currency,
            "budget": spend.budget,
            "left": max(0.0, spend.budget - sum(spent.values())),
        },
    }


def nothing_paid(answer: dict[str, Any]) -> str:
    """The sentence for a run without a line."""
    return (
        f"No answer of {answer['run']} was paid for. Costs are counted where caption.spend has prices; answers from "
        "before it was set are not among them."
    )


def money(amount: float, currency: str) -> str:
    """Cents, or four digits of what is less than one."""
    return f"{amount:,.2f} {currency}" if amount >= 1 or amount == 0 else f"{amount:.4g} {currency}"


def _lines(storage: Storage) -> Iterator[dict[str, Any]]:
    for key in storage.list(f"{STAGE}/lasting"):
        if key.endswith(".jsonl"):
            yield from ledger_lines(storage.local(key))
