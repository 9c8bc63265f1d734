"""`python -m demo.train NAME`: train one of the demo's models."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from demo.train.pool import CACHE
from demo.train.recipes import names, recipe

CONFIGS = Path(__file__).parent / "configs"


class UsageError(Exception):
    """What was asked for is no training; the message is one paragraph."""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        kind = recipe(options.name)
        values = _values(options.config or CONFIGS / f"{options.name}.yaml", options.set)
        config = kind.section.model_validate(values)
    except (UsageError, ValidationError) as error:
        return _refused(_told(error))
    from demo.train.loop import MismatchError, train  # torch, which --help need not wait for

    typed = sys.argv[1:] if arguments is None else arguments
    try:
        figures = train(
            kind(config),
            options.out or Path("runs/train") / options.name,
            command=shlex.join(["python", "-m", "demo.train", *typed]),
            device=options.device,
            threads=options.threads,
            cache=options.cache,
            render_workers=options.render_workers,
        )
    except MismatchError as error:
        return _refused(str(error))
    print(", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.train",
        description="Train one of the demo's models on the scene world. The same command goes on after a stop.",
    )
    parser.add_argument("name", choices=names(), help="which model")
    parser.add_argument("--config", type=Path, help="a YAML file (default: the model's own)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one of its values")
    parser.add_argument("--out", type=Path, help="checkpoint, curve and weights (default: runs/train/NAME)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="rendered scenes (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU (default: %(default)s)")
    parser.add_argument("--render-workers", type=int, default=1, help="processes that render (default: %(default)s)")
    return parser


def _values(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The file's values under those of the command line.

    Raises:
        UsageError: the file cannot be read or is no mapping, or an override is not KEY=VALUE.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        given = dict(text.split("=", 1) for text in overrides)
        read = {key.strip(): yaml.safe_load(value) for key, value in given.items()}
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(str(error)) from error
    except ValueError as error:
        raise UsageError(f"--set takes KEY=VALUE, not {' '.join(t for t in overrides if '=' not in t)}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} is no mapping of settings to values")
    return {**values, **read}


def _told(error: UsageError | ValidationError) -> str:
    if isinstance(error, UsageError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


def _refused(reason: str) -> int:
    print(f"demo.train: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
