"""Every figure of the fusion models in one table.

    python -m benchmarks.fusion [--json] [--page docs/fusion.md] [--scenes N]

Measured now: parity with the authors' connectors, parity of transformers and vLLM, the demo's captioner. Training takes
hours: connectors under one budget are those of benchmarks/fusion/connectors.json; docs/fusion.md has the command.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.fusion import captioner, connectors, parity, serving

CLOSE = 1e-5
TRAINED = Path(__file__).parent / "connectors.json"


def measure(scenes: int, first: int) -> dict[str, Any]:
    """The whole answer, a key for each table."""
    return {
        "parity": parity.differences(),
        "captioner": captioner.measure(scenes, first),
        "connectors": json.loads(TRAINED.read_text(encoding="utf-8")),
        # Last: an engine leaves settings of its own behind.
        "serving": serving.measure(serving.CASES, prompts=8, tokens=48),
    }


def tables(answer: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Rows of words by title, head first."""
    met = [[one["words"], "yes" if one["met"] else "no", one["found"]] for one in answer["captioner"]["targets"]]
    far, served = answer["parity"], answer["serving"]["connectors"]
    worst = max(far.values())
    same = [one for one in served if one["identical"] == one["prompts"]]
    met += [
        [f"connectors, from the authors' own: at most {CLOSE:g}", "yes" if worst <= CLOSE else "no", f"{worst:.1e}"],
        [
            f"greedy answers of transformers and vLLM, {served[0]['prompts']} of {served[0]['tokens']} tokens: alike",
            "yes" if len(same) == len(served) else "no",
            f"{len(same)} of {len(served)} models",
        ],
    ]
    setting, budget = answer["captioner"]["setting"], answer["connectors"]["budget"]
    return {
        "What was to be reached": [["target", "met", "found"], *met],
        f"The demo's captioner, {setting['scenes']} test scenes from number {setting['first']}": captioner.table(
            answer["captioner"]
        ),
        "Connectors against the authors' code": [
            ["case", "largest difference, float32"],
            *([name, f"{value:.1e}"] for name, value in far.items()),
        ],
        "transformers against vLLM, greedy, float32": [
            ["connector", "identical", "largest difference of a log-probability"],
            *(
                [one["connector"], f"{one['identical']}/{one['prompts']}", f"{one['max_logprob_difference']:.1e}"]
                for one in served
            ),
        ],
        f"Connectors under one budget: {budget['steps']} steps of {budget['batch']} rows": connectors.table(
            answer["connectors"]
        ),
    }


NOTES = {
    "The demo's captioner": """\
In brackets 95 % bootstrap intervals over pictures. `with`: it is given what the demo's experts and the page say;
`without`: nothing but the picture; `list`: no model, the notes copied out. Detectors name no colours, so the list falls
short of class and colour, and of the captioner without notes, which sees colours itself: there the expected order does
not hold. By class alone the list is a little better than the captioner without notes, and worse than with them. The
signs' words are in no training scene. How the captioner was trained: [training-the-demo.md](training-the-demo.md).""",
    "Connectors against": """\
The official modules were run aside with the same seeded weights and pictures; which, at which commit, is told in
`benchmarks/fusion/parity.py`. For Florence-VL it is the concatenation's projector that is compared: its own Florence-2
is in no published code.""",
    "transformers against": """\
Models of every connector with random weights, served by the plugin as any other model.""",
    "Connectors under": """\
Every model starts from the same towers and the captioner's language model, with a fresh connector, and sees the same
rows, half of them without notes; a seed decides the connector's start and the order of rows. Mean of the seeds,
lowest and highest in brackets. The language model is the captioner's before it learnt repairs; it has learnt with
`mlp` on the tower's last layer, so what feeds it the like has an easier start. `conv_gate`'s second tower knew
nothing at the start, where the published one is CLIP's; `dbfusion` asks two prompts, which is what the demo's
Florence-2 has learnt. So these figures say that all of them train, and what this budget makes of them, not which
design is best at full size ([designs.md](designs.md) has the published results).
Made by:

```sh
python -m demo.captioner parts --out runs/connectors/parts
python -m demo.captioner data --scenes 2000 --first 40000 --draws 2 --bare 0.5 --out runs/connectors/data
python -m demo.captioner data --split test --scenes 200 --priors measured --out runs/connectors/test
python -m benchmarks.fusion.connectors train --data runs/connectors/data --test runs/connectors/test \\
  --parts runs/connectors/parts --out runs/connectors/out    # hours of a CPU
python -m benchmarks.fusion.connectors show runs/connectors/out --json > benchmarks/fusion/connectors.json
```""",
}
"""What a table's reader must know, by the beginning of its title."""


def page(answer: dict[str, Any]) -> str:
    """The docs page."""
    lines = [
        "# The fusion models in figures",
        "",
        "Made by `python -m benchmarks.fusion --page docs/fusion.md`, which measures all but the last table anew.",
    ]
    for title, (head, *rows) in tables(answer).items():
        lines += ["", f"## {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        lines += [line for start, note in NOTES.items() if title.startswith(start) for line in ("", note)]
    return "\n".join(lines).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(prog="python -m benchmarks.fusion", description=__doc__)
    command.add_argument("--json", action="store_true", help="print JSON in place of tables")
    command.add_argument("--page", type=Path, help="write the docs page to this file, too")
    command.add_argument("--scenes", type=int, default=400, help="that the captioner is judged by")
    command.add_argument("--first", type=int, default=0, help="number of the first of them; any, for fresh ones")
    given = command.parse_args(arguments)
    answer = measure(given.scenes, given.first)
    if given.page is not None:
        given.page.write_text(page(answer), encoding="utf-8")
    print(json.dumps(answer, indent=2) if given.json else page(answer))


if __name__ == "__main__":
    main()
