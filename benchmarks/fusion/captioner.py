"""The demo's captioner on scenes that nothing was fitted to: with notes, without them, and the notes copied out.

    python -m benchmarks.fusion.captioner [--json] [--scenes N] [--first N]

Notes are the demo's experts' own and the alt text that the page has; the signs' words are in no training scene.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.command import scenes_main
from benchmarks.machine import machine
from demo.captioner.data import DataSettings, PriorsKind, write_data
from demo.weights import make_weights
from fusion.evaluate.evaluation import evaluate
from fusion.evaluate.section import load_section

OBJECTS, CATEGORIES, COPIED = "object_f1", "category_f1", "text_copied"
CLAIMS, BOXES = "false_claims_repeated", "false_boxes_repeated"
MEASURES = {
    OBJECTS: "objects, class and colour: F1",
    CATEGORIES: "objects, class alone: F1",
    "attribute_precision": "size, side and depth said of objects: right",
    "count_accuracy_several": "numbers of alike objects: right",
    "relation_precision": "relations stated: right",
    "text_recall": "signs written exactly, of all",
    COPIED: "signs written exactly, of those whose text the notes hold",
    CLAIMS: "wrong alt text repeated as fact",
    BOXES: "false boxes repeated as objects",
}


@dataclass(frozen=True)
class Target:
    """What is to be reached.

    Attributes:
        met: whether it was.
        found: the values that say so.
    """

    words: str
    met: bool
    found: str


def measure(scenes: int, first: int, priors: PriorsKind = "experts") -> dict[str, Any]:
    """The whole answer: `captioners` by name with figures (value, low, high, n), `targets`.

    Args:
        first: number of the test split's first scene.
        priors: whose they are.
    """
    with tempfile.TemporaryDirectory() as made:
        data, weights = Path(made) / "data", make_weights(Path(made) / "weights")
        write_data(DataSettings("test", scenes, first, priors=priors), data)
        model = str(weights["captioner"])
        section = load_section(
            "scene-world",
            [
                *(f"{key}={data / name}" for key, name in (("truth", "rows.jsonl"), ("vocabulary", "vocabulary.yaml"))),
                f"images={data}",
                *(f"captioners.{name}.model={model}" for name in ("with", "without")),
            ],
        )
        answer = evaluate(section)
    figures = {
        name: {one: found["figures"][one] for one in MEASURES if one in found["figures"]}
        for name, found in answer["captioners"].items()
    }
    return {
        "benchmark": "fusion.captioner",
        "machine": machine("torch", "transformers"),
        "setting": {"scenes": scenes, "first": first, "level": answer["level"]},
        "captioners": figures,
        "targets": [vars(one) for one in targets(figures)],
    }


def targets(figures: dict[str, dict[str, Any]]) -> list[Target]:
    """What was to be reached, and whether it was."""
    value = {name: {one: f["value"] for one, f in found.items()} for name, found in figures.items()}
    noted, bare, listed = value["with"], value["without"], value["list"]

    def ordered(of: str) -> Target:
        found = f"{noted[of]:.3f}, {listed[of]:.3f}, {bare[of]:.3f}"
        return Target(f"{MEASURES[of]}: with > list > without", noted[of] > listed[of] > bare[of], found)

    def bounded(of: str, bound: float, most: bool) -> Target:
        words = f"{MEASURES[of]}: at {'most' if most else 'least'} {bound:g}"
        return Target(words, noted[of] <= bound if most else noted[of] >= bound, f"{noted[of]:.3f}")

    return [
        bounded(OBJECTS, 0.9, False),
        ordered(OBJECTS),
        ordered(CATEGORIES),
        bounded(COPIED, 0.9, False),
        bounded(CLAIMS, 0.05, True),
        bounded(BOXES, 0.5, True),
    ]


def table(answer: dict[str, Any]) -> list[list[str]]:
    """Rows of words: head first."""
    names = list(answer["captioners"])
    rows = [["", *names]]
    for one, words in MEASURES.items():
        found = [answer["captioners"][name].get(one) for name in names]
        rows.append([words, *(f"{f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}]" if f else "" for f in found)])
    return rows


def show(answer: dict[str, Any]) -> None:
    """Print tables."""
    out, (head, *rows) = Console(), table(answer)
    setting = answer["setting"]
    shown = Table(*head, title=f"captioner, {setting['scenes']} scenes; in brackets {setting['level']:.0%} intervals")
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
    met = Table("target", "met", "found")
    for one in answer["targets"]:
        met.add_row(one["words"], "yes" if one["met"] else "no", one["found"])
    out.print(met)


def main(arguments: Sequence[str] | None = None) -> None:
    scenes_main("fusion.captioner", __doc__ or "", 400, measure, show, arguments)


if __name__ == "__main__":
    main()
