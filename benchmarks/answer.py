"""How a benchmark answers: JSON, or the same as tables."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table


def show(answer: dict[str, Any], as_json: bool) -> None:
    """Print an answer: `benchmark`, `machine`, `setting`, `comparisons`, and further groups of figures."""
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    out = Console()
    for comparison in answer["comparisons"]:
        out.print(_rounds(comparison))
    for group in (name for name in answer if name not in ("benchmark", "comparisons")):
        out.print(f"{group}: {_words(answer[group])}", markup=False, highlight=False)


def _rounds(comparison: dict[str, Any]) -> Table:
    unit = comparison["unit"]
    title = f"{comparison['measured']} against {comparison['against']}"
    table = Table("round", "first", f"{unit}/s", f"{unit}/s against", "ratio", "CPU ratio", title=title)
    for number, r in enumerate(comparison["rounds"], start=1):
        rates = f"{r['measured_rate']:.4g}", f"{r['against_rate']:.4g}"
        table.add_row(str(number), r["first"], *rates, f"{r['ratio']:.2f}", f"{r['cpu_ratio']:.2f}")
    medians = f"{comparison['median_ratio']:.2f}", f"{comparison['median_cpu_ratio']:.2f}"
    table.add_row("median", "", "", "", *medians, style="bold")
    return table


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
