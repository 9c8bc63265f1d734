"""The connectors under one training budget: the same towers, language model, rows and steps; several seeds each.

    python -m benchmarks.fusion.connectors train --data FOLDER --test FOLDER --parts FOLDER --out FOLDER [--seeds 0 1 2]
    python -m benchmarks.fusion.connectors show FOLDER [--json]

A seed decides the fresh connector's weights and the order of the rows. Each model is judged by `densefusion evaluate`
with all notes about a picture and with none. What is there already is not trained again.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.captioner.rows import PROMPT

FIGURES = "figures.json"
MEASURES = (
    "object_f1",
    "category_f1",
    "attribute_precision",
    "count_accuracy",
    "relation_precision",
    "text_copied",
    "false_boxes_repeated",
)
_CLIP = {"vision": {"model": "vision"}}
_FLORENCE_PROMPTS = (
    (0, 434, 438, 503, 456, 436, 461, 443, 499, 313, 462, 17, 2),
    (0, 433, 313, 495, 499, 313, 462, 15, 438, 439, 470, 17, 2),
)
"""What the demo's Florence-2 was taught to answer: its ids of <MORE_DETAILED_CAPTION> and <DENSE_REGION_CAPTION>, as
its processor writes them out."""
MODELS: dict[str, dict[str, Any]] = {
    "mlp": _CLIP,
    "s2": _CLIP,
    "sti": {**_CLIP, "connector_options": {"layers": [2, 4]}},
    "sci": {**_CLIP, "connector_options": {"layers": [2, 4]}},
    "dci": _CLIP,
    "conv_gate": {**_CLIP, "detail": {"model": "detail"}, "connector_options": {"canvas": 320, "roi": 14}},
    "dbfusion": {
        "vision": {"model": "florence"},
        "connector_options": {"canvas": 160, "prompts": _FLORENCE_PROMPTS},
    },
}
"""Each connector's `model` section, less the language model; folders are those of `python -m demo.captioner parts`."""


@dataclass(frozen=True)
class Budget:
    """What every model is given.

    Attributes:
        batch: rows of a step.
        test: pictures that it is judged by.
    """

    steps: int
    batch: int
    test: int
    learning_rate: float
    precision: str
    workers: int


@dataclass(frozen=True)
class Folders:
    """Where things lie: training rows and test rows (`python -m demo.captioner data`), parts, results."""

    data: Path
    test: Path
    parts: Path
    out: Path


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    if given.command == "train":
        folders = Folders(given.data, given.test, given.parts, given.out)
        budget = Budget(given.steps, given.batch, given.pictures, given.learning_rate, given.precision, given.workers)
        _train_all(folders, budget, given.connector, given.seeds, given.jobs)
    answer = summary(given.out)
    if given.command == "show" and given.json:
        print(json.dumps(answer, indent=2))
    else:
        show(answer)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion.connectors", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train and judge every connector")
    for name in ("data", "test", "parts", "out"):
        train.add_argument(f"--{name}", type=Path, required=True)
    train.add_argument("--connector", nargs="+", choices=list(MODELS), default=list(MODELS))
    train.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    train.add_argument("--steps", type=int, default=80)
    train.add_argument("--batch", type=int, default=32)
    train.add_argument("--pictures", type=int, default=200, help="to judge by (default: %(default)s)")
    train.add_argument("--learning-rate", type=float, default=2e-3)
    train.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    train.add_argument("--workers", type=int, default=0, help="processes that load rows, for each model in training")
    train.add_argument("--jobs", type=int, default=1, help="models in training at once")
    shown = commands.add_parser("show", help="print what `train` left")
    shown.add_argument("out", type=Path)
    shown.add_argument("--json", action="store_true")
    return parser


def _train_all(folders: Folders, budget: Budget, names: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    wanted = [
        (name, seed) for seed in seeds for name in names if not (_run(folders.out, name, seed) / FIGURES).is_file()
    ]
    # A process each: a training leaves settings of its libraries behind.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        tasks = {pool.submit(train_one, folders, budget, name, seed): (name, seed) for name, seed in wanted}
        for task in as_completed(tasks):
            name, seed = tasks[task]
            task.result()
            print(f"{name}, seed {seed}: done", file=sys.stderr, flush=True)


def _run(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}-{seed}"


def train_one(folders: Folders, budget: Budget, name: str, seed: int) -> None:
    """Train one connector with one seed, judge it, and write OUT/NAME-SEED/figures.json."""
    import torch

    from fusion.evaluate.evaluation import evaluate
    from fusion.evaluate.section import EvaluateSection
    from fusion.train.run import train
    from fusion.train.section import TrainSection

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)
    run = _run(folders.out, name, seed)
    section = TrainSection.model_validate(_settings(folders, budget, name, seed, run))
    outcome = train(section, f"python -m benchmarks.fusion.connectors train --connector {name} --seeds {seed}")
    assert outcome is not None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    captioner = {"kind": "checkpoint", "model": outcome.model, "max_tokens": 160, "device": device, "batch_size": 100}
    answer = evaluate(
        EvaluateSection.model_validate(
            {
                "truth": str(folders.test / "rows.jsonl"),
                "vocabulary": str(folders.test / "vocabulary.yaml"),
                "images": str(folders.test),
                "limit": budget.test,
                "prompt": PROMPT,
                "captioners": {"with": captioner, "without": {**captioner, "notes": "nothing"}},
                "output": str(run / "captions"),
            }
        )
    )
    judged = {
        shown: {measure: one["figures"][measure]["value"] for measure in MEASURES if measure in one["figures"]}
        for shown, one in answer["captioners"].items()
    }
    figures = {
        "connector": name,
        "seed": seed,
        "budget": asdict(budget),
        "loss": outcome.loss,
        "trained": sum(outcome.trained.values()),
        "tokens": _tokens(outcome.model),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "seconds": outcome.seconds,
        **judged,
    }
    (run / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _settings(folders: Folders, budget: Budget, name: str, seed: int, run: Path) -> dict[str, Any]:
    """Of `densefusion train`: what is fresh is trained, the trained towers stay as they are."""
    model = dict(MODELS[name])
    for part in ("vision", "detail"):
        if part in model:
            model[part] = {"model": str(folders.parts / model[part]["model"])}
    return {
        "output": str(run / "train"),
        "model": {**model, "text": {"model": str(folders.parts / "text")}, "connector": name, "fit": "stretch"},
        "data": {
            "sources": [
                {
                    "format": "rows",
                    "path": str(folders.data / "rows.jsonl"),
                    "images": str(folders.data),
                    "prompt": PROMPT,
                }
            ],
            "workers": budget.workers,
        },
        "template": "tokenizer",
        "max_length": 640,
        "trainable": ["connector", "language_model", *(["detail"] if "detail" in model else [])],
        "learning_rate": budget.learning_rate,
        # What has learnt already is changed less.
        "learning_rates": {"language_model": budget.learning_rate / 4},
        "warmup_ratio": 0.05,
        "weight_decay": 0.05,
        "betas": [0.9, 0.98],
        "batch_size": budget.batch,
        "per_device_batch": budget.batch,
        "max_steps": budget.steps,
        "seed": seed,
        "precision": budget.precision,
        "save_precision": "fp32",
        "gradient_checkpointing": False,
        "log_every": 20,
        "save_every": max(budget.steps // 2, 1),
    }


def _tokens(model: str) -> int:
    from fusion.model.configuration import FusionConfig
    from fusion.model.connectors import connector_of

    config = FusionConfig.from_pretrained(model)
    return connector_of(config.connector).tokens(config)


def summary(out: Path) -> dict[str, Any]:
    """Mean and spread over seeds of every figure, by connector; the spread is the range.

    Raises:
        SystemExit: there is nothing yet.
    """
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob(f"*/{FIGURES}"))]
    if not found:
        raise SystemExit(f"{out} holds no results. Make some with `python -m benchmarks.fusion.connectors train`.")
    connectors = {}
    for name in MODELS:
        own = [one for one in found if one["connector"] == name]
        if own:
            connectors[name] = {
                "seeds": [one["seed"] for one in own],
                "tokens": own[0]["tokens"],
                "trained": own[0]["trained"],
                "loss": _spread([one["loss"] for one in own]),
                **{
                    shown: {m: _spread([one[shown][m] for one in own]) for m in MEASURES if m in own[0][shown]}
                    for shown in ("with", "without")
                },
            }
    budget = {key: value for key, value in found[0]["budget"].items() if key != "workers"}
    return {"budget": budget, "device": found[0]["device"], "connectors": connectors}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "low": min(values), "high": max(values)}


_COLUMNS = (
    ("objects, with notes", "with", "object_f1"),
    ("without", "without", "object_f1"),
    ("classes, without", "without", "category_f1"),
    ("attributes, without", "without", "attribute_precision"),
    ("relations, without", "without", "relation_precision"),
    ("text copied", "with", "text_copied"),
)


def table(answer: dict[str, Any]) -> list[list[str]]:
    """Rows of words: head first."""
    rows = [["connector", "seeds", "tokens", "trained, M", "loss", *(title for title, _, _ in _COLUMNS)]]
    for name, one in answer["connectors"].items():
        figures = [one[shown].get(measure) for _, shown, measure in _COLUMNS]
        rows.append(
            [
                name,
                str(len(one["seeds"])),
                str(one["tokens"]),
                f"{one['trained'] / 1e6:.2f}",
                *(f"{f['mean']:.3f} ({f['low']:.3f}-{f['high']:.3f})" if f else "" for f in (one["loss"], *figures)),
            ]
        )
    return rows


def show(answer: dict[str, Any]) -> None:
    """Print the table."""
    head, *rows = table(answer)
    budget = answer["budget"]
    given = f"{budget['steps']} steps of {budget['batch']} rows, judged by {budget['test']} scenes"
    shown = Table(*head, title=f"connectors under one budget, {given}; mean of the seeds (lowest-highest)")
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


if __name__ == "__main__":
    sys.exit(main())
