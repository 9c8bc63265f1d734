"""What every benchmark's command line has."""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any


def parser(name: str, about: str, images: int) -> argparse.ArgumentParser:
    """Takes --json, --images and --rounds.

    Args:
        name: of the module in benchmarks/.
        images: default of --images.
    """
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    made.add_argument("--json", action="store_true", help="print JSON in place of tables")
    made.add_argument("--images", type=_positive, default=images, help="worked on by each side in each round")
    made.add_argument("--rounds", type=_positive, default=3, help="how often both sides are timed")
    return made


def scenes_main(
    name: str,
    about: str,
    scenes: int,
    measure: Callable[[int, int], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    arguments: Sequence[str] | None,
) -> None:
    """The whole command of a benchmark on rendered scenes: --json, --scenes, --first.

    Args:
        name: of the module in benchmarks/.
        scenes: default of --scenes.
        measure: given how many scenes and the number of the first one.
        show: prints an answer as tables.
    """
    command = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    command.add_argument("--json", action="store_true", help="print JSON in place of tables")
    command.add_argument("--scenes", type=int, default=scenes)
    command.add_argument("--first", type=int, default=0, help="number of the first scene; any, for fresh ones")
    given = command.parse_args(arguments)
    answer = measure(given.scenes, given.first)
    if given.json:
        print(json.dumps(answer, indent=2))
    else:
        show(answer)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number
