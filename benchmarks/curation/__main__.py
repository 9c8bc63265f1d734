"""How curation does against the algorithms that the field uses, and against brute force.

    python -m benchmarks.curation [--json] [--quick] [--only PART ...] [--from FILE] [--page docs/curation.md]

Each part runs in a process of its own, on one thread; both sides of a ratio run there in turns.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.curation.page import cells, write_page
from benchmarks.curation.paper import estimates
from benchmarks.curation.parts import PARTS
from benchmarks.machine import machine
from schemas.errors import RequestError

LIBRARIES = ("faiss-cpu", "numpy", "scipy", "torch")


def main(arguments: Sequence[str] | None = None) -> None:
    command = _command()
    given = command.parse_args(arguments)
    if given.inside:
        module = importlib.import_module(f"benchmarks.curation.{given.inside}")
        print(json.dumps([figure.as_json() for figure in module.measure(given.quick)]))
        return
    answer: dict[str, Any] = {"benchmark": "curation", "parts": {}}
    if given.earlier:
        answer = json.loads(given.earlier.read_text())
    try:
        for part in given.only if given.only is not None else PARTS:
            print(f"{PARTS[part].title} ...", file=sys.stderr)
            answer["parts"][part] = _measured(part, given.quick)
    except RequestError as error:
        command.exit(1, f"{error}\n")
    answer["parts"] = {part: answer["parts"][part] for part in PARTS if part in answer["parts"]}
    answer["paper"] = estimates()
    if given.page:
        write_page(answer, given.page)
    if given.json:
        print(json.dumps(answer, indent=1))
    else:
        _show(answer)


def _command() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.curation", description=__doc__.splitlines()[0])
    made.add_argument("--json", action="store_true", help="print JSON in place of tables")
    made.add_argument("--quick", action="store_true", help="small sets: exactness holds, ratios say little")
    made.add_argument("--only", nargs="*", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    made.add_argument("--from", dest="earlier", type=Path, metavar="FILE", help="JSON of an earlier run, added to")
    made.add_argument("--page", type=Path, metavar="FILE", help="write a page of docs/")
    made.add_argument("--inside", choices=PARTS, help=argparse.SUPPRESS)
    return made


def _measured(part: str, quick: bool) -> dict[str, Any]:
    """One part, by a process of its own on one thread.

    Raises:
        RequestError: it failed.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    command = [sys.executable, "-m", "benchmarks.curation", "--inside", part, *(["--quick"] if quick else [])]
    before = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ | threads, text=True, check=False)
    if done.returncode:
        raise RequestError(f"The part {part} failed; what it wrote stands above.")
    return {
        "figures": json.loads(done.stdout.splitlines()[-1]),
        "seconds": time.perf_counter() - before,
        "quick": quick,
        "machine": machine(*LIBRARIES),
    }


def _show(answer: dict[str, Any]) -> None:
    out = Console()
    for part, measured in answer["parts"].items():
        shown = Table("what", "figure", "target", "", "against", title=PARTS[part].title)
        for figure in measured["figures"]:
            shown.add_row(*cells(figure))
        out.print(shown)


if __name__ == "__main__":
    main()
