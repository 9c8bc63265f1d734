"""What every benchmark's command line has."""

import argparse


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


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number
