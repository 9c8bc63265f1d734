"""`python -m fusion.train CONFIG`, and with several GPUs `accelerate launch -m fusion.train CONFIG`."""

import argparse
import json
import shlex
import sys
from dataclasses import asdict

from fusion.train.section import RECIPES, load_section
from schemas.errors import EXIT_BAD_REQUEST, EXIT_DONE, EXIT_FAILED_SHARDS, RequestError, SetupError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fusion.train", description="Train a fusion model. The same command goes on after a stop."
    )
    parser.add_argument("config", help=f"a YAML file or a recipe: {', '.join(RECIPES.names())}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    options = parser.parse_args(arguments)
    typed = sys.argv[1:] if arguments is None else arguments
    try:
        section = load_section(options.config, options.set)
        from fusion.train.run import train  # torch, which --help need not wait for

        outcome = train(section, shlex.join(["python", "-m", "fusion.train", *typed]))
    except (RequestError, SetupError) as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_BAD_REQUEST if isinstance(error, RequestError) else EXIT_FAILED_SHARDS
    if outcome is not None:
        sys.stdout.write(json.dumps(asdict(outcome), indent=2) + "\n")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
