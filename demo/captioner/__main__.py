"""`python -m demo.captioner`: what the demo's captioner learns from, starts from, and is judged by."""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.captioner.data import PRIORS, DataSettings, write_data
from demo.captioner.rows import BARE
from demo.split import SPLITS, seeds

MOST_SCENES = 1_000_000
_NOISE_FIRST = 500_000
"""Of the validation seeds on which the experts' errors are measured."""


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    match given.command:
        case "data":
            shares = {"bare": given.bare, "repairs": given.repairs}
            settings = DataSettings(given.split, given.scenes, given.first, given.draws, given.priors, **shares)
            print(f"{write_data(settings, given.out, given.workers)} rows: {given.out}")
        case "start":
            from demo.captioner.start import make_start

            make_start(given.out, seed=given.seed)
            print(f"a model to train: {given.out}")
        case "parts":
            from demo.captioner.parts import make_parts

            make_parts(given.out, seed=given.seed)
            print(f"towers and a language model: {given.out}")
        case "pack":
            from demo.captioner.packing import pack

            print(f"{pack(given.model, given.out):,} bytes: {given.out}")
        case "noise":
            _noise(given.scenes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.captioner", description=(__doc__ or "").split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="render scenes; write pictures and rows")
    data.add_argument("--split", choices=SPLITS, default="train", help="rows of other splits hold the truth, too")
    data.add_argument("--scenes", type=_number, required=True)
    data.add_argument("--first", type=int, default=0, help="number of the split's first scene (default: %(default)s)")
    data.add_argument("--draws", type=_number, default=2, help="rows a training scene (default: %(default)s)")
    data.add_argument("--priors", choices=PRIORS, default="harder", help="whose errors (default: %(default)s)")
    data.add_argument("--bare", type=_share, default=BARE, help="share of rows without notes (default: %(default)s)")
    data.add_argument(
        "--repairs", type=_share, default=0.0, help="share of the others that are repairs (default: %(default)s)"
    )
    data.add_argument("--out", type=Path, required=True)
    data.add_argument("--workers", type=_number, default=1, help="processes that render (default: %(default)s)")
    for name, what in (("start", "the model that training starts from"), ("parts", "towers and a language model")):
        fresh = commands.add_parser(name, help=f"write {what}")
        fresh.add_argument("--seed", type=int, default=0)
        fresh.add_argument("--out", type=Path, required=True)
    packed = commands.add_parser("pack", help="write a trained model's weights as they ship: a byte a weight")
    packed.add_argument("model", type=Path, help="folder that a training wrote")
    packed.add_argument("--out", type=Path, required=True)
    noise = commands.add_parser("noise", help="measure the errors of the demo's experts, and of the noise model")
    noise.add_argument("--scenes", type=_number, default=300)
    return parser


def _number(text: str) -> int:
    if not 1 <= int(text) <= MOST_SCENES:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {MOST_SCENES}")
    return int(text)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return float(text)


def _noise(scenes: int) -> None:
    import io

    from PIL import Image

    from demo.captioner.measure import noise_figures
    from demo.captioner.noise import HARDER, MEASURED, noisy_priors
    from demo.captioner.perceived import demo_experts
    from demo.encodings import jpeg
    from demo.scene import render

    seen = []
    with demo_experts() as experts:
        for seed in seeds("validation", scenes, _NOISE_FIRST):
            scene = render(seed)
            with Image.open(io.BytesIO(jpeg(scene.image))) as image:
                seen.append((scene.truth, experts.of([image.convert("RGB")])[0]))
    columns = [noise_figures(seen)]
    for noise in (MEASURED, HARDER):
        made = [(truth, noisy_priors(truth, random.Random(truth.seed), noise)) for truth, _ in seen]
        columns.append(noise_figures(made))
    print(f"{'':52} experts  measured  harder")
    for name in columns[0]:
        values = [f"{column[name]:.3f}" if name in column else "" for column in columns]
        print(f"{name:52} {values[0]:>7}  {values[1]:>8}  {values[2]:>6}")


if __name__ == "__main__":
    sys.exit(main())
