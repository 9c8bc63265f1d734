"""What the demo's stages make of fresh scenes, held against the truth, each figure beside its target and baseline.

    python -m benchmarks.world [--json] [--scenes N] [--seed S ...] [--split SPLIT] [--set KEY=VALUE ...] [--page FILE]

The stages run in this process, with the settings of the demo's preset. Progress goes to stderr.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.world.measure import Measured, Say, demo_config, measure
from benchmarks.world.page import cells, draw_pictures, write_page
from benchmarks.world.shots import MEAN_MAP_SCENES
from benchmarks.world.table import summarised, table
from demo.split import SPLITS, seeds
from demo.train.pool import data_version
from schemas.errors import ContractError, RequestError, SetupError

APART = 1_000_000
"""Seed S means the scenes from the split's S millionth on, as in the demo's world."""
MOST_SCENES = 100_000
SETS = 999
"""Behind the last one lie the scenes of the mean depth map."""
LIBRARIES = ("torch", "open_clip_torch", "transformers", "faiss-cpu", "rapidocr", "onnxruntime", "pillow")


def main(arguments: Sequence[str] | None = None) -> None:
    command = _parser()
    given = command.parse_args(arguments)
    start = time.perf_counter()

    def say(text: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        answer = json.loads(given.saved.read_text(encoding="utf-8")) if given.saved else _measured(given, say)
    except (RequestError, SetupError, ContractError, OSError) as error:
        command.error(str(error))
    if given.page:
        write_page(answer, given.page)
    if given.json:
        print(json.dumps(answer, indent=1))
    else:
        _show(answer)


def _measured(given: argparse.Namespace, say: Say) -> dict[str, Any]:
    from transformers.utils import logging

    done: list[Measured] = []
    sets = [seeds(given.split, given.scenes, seed * APART) for seed in given.seed]
    with demo_config(given.set) as config:
        logging.disable_progress_bar()  # here, because who makes small weights turns it on again
        for measured in measure(config, sets, say=say):
            if given.page and not done:
                draw_pictures(measured, given.page)
            done.append(measured.without_scenes())
    return _answer(given, done)


def _parser() -> argparse.ArgumentParser:
    about = "What the demo's stages make of fresh scenes, held against the truth."
    command = argparse.ArgumentParser(prog="python -m benchmarks.world", description=about)
    command.add_argument("--json", action="store_true", help="print JSON in place of a table")
    command.add_argument("--scenes", type=_between(2, MOST_SCENES), default=400, help="in each set")
    command.add_argument(
        "--seed", type=_between(0, SETS - 1), nargs="+", default=[501], help="of each set; several show the spread"
    )
    command.add_argument(
        "--split", choices=SPLITS, default="test", help="validation where thresholds are chosen, test for figures"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of the preset"
    )
    command.add_argument("--page", type=Path, help="also write this Markdown page, with pictures in images/ beside it")
    command.add_argument(
        "--from", type=Path, dest="saved", metavar="FILE", help="measure nothing: take what --json printed before"
    )
    return command


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return int(text)

    return number


def _answer(given: argparse.Namespace, measured: Sequence[Measured]) -> dict[str, Any]:
    sets = [
        {"seed": seed, "figures": one.figures, "seconds": one.seconds}
        for seed, one in zip(given.seed, measured, strict=True)
    ]
    figures = summarised([one.figures for one in measured])
    return {
        "benchmark": "world",
        "machine": machine(*LIBRARIES),
        "setting": {
            "preset": "demo",
            "overrides": given.set,
            "split": given.split,
            "scenes": given.scenes,
            "seeds": given.seed,
            "data": data_version(),
            "mean_map_scenes": MEAN_MAP_SCENES,
        },
        "models": measured[0].models,
        "table": table(figures),
        "figures": figures,
        "sets": sets,
    }


def _show(answer: dict[str, Any]) -> None:
    out = Console()
    setting = answer["setting"]
    sets = f"{len(setting['seeds'])} x {setting['scenes']} scenes of the {setting['split']} split"
    shown = Table("what", "figure", "least", "most", "baseline", "target", "", title=sets)
    for row in answer["table"]:
        shown.add_row(*cells(row))
    out.print(shown)
    known = {row["figure"] for row in answer["table"]}
    for name, value in answer["figures"].items():
        if name not in known:
            out.print(f"{name}: {value['mean']:.4g}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
