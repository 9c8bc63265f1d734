"""Runs an evaluation: captions of every captioner, every metric of every caption, figures with intervals."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fusion.evaluate.captioners import Captioned, captioner_of
from fusion.evaluate.captioners.base import picture_file
from fusion.evaluate.clip_score import ClipScore
from fusion.evaluate.metrics import LESS_IS_BETTER, measure
from fusion.evaluate.reader import ClaimReader
from fusion.evaluate.section import EvaluateSection
from fusion.evaluate.statistics import Bootstrap
from fusion.evaluate.tally import Tally
from fusion.evaluate.truth import TruthRow, read_truth
from fusion.evaluate.vocabulary import read_vocabulary

Say = Callable[[str], None]
CLIP_SCORE = "clip_score"


def evaluate(section: EvaluateSection, say: Say = lambda text: None) -> dict[str, Any]:
    """Figures as JSON: `rows`; `captioners`, by name, with `figures` (value, low, high, n, pictures), `failed`, `empty`
    and `words`, the mean length; `differences` of each from the first, by metric.

    Raises:
        RequestError: files or settings are wrong. SetupError: an engine or a checkpoint does not work.
    """
    vocabulary = read_vocabulary(Path(section.vocabulary))
    rows = read_truth(Path(section.truth), vocabulary)[: section.limit]
    images = Path(section.images)
    captioners = {name: captioner_of(one, section.prompt, images) for name, one in section.captioners.items()}
    clip = ClipScore(section.clip) if section.clip else None
    reader = ClaimReader(vocabulary)
    bootstrap = Bootstrap(len(rows), section.resamples, section.seed, section.level)
    answers: dict[str, Any] = {}
    tallies: dict[str, dict[str, list[Tally]]] = {}
    for name, captioner in captioners.items():
        say(f"{name}: captions of {len(rows)} pictures")
        captions = captioner.caption(rows)
        if section.output:
            _keep(Path(section.output) / f"{name}.jsonl", rows, captions)
        tallies[name] = _judged(rows, [one.text for one in captions], reader)
        if clip:
            say(f"{name}: CLIP score")
            files = [picture_file(row, images) for row in rows]
            tallies[name][CLIP_SCORE] = [
                Tally(score, 1) for score in clip.scores(files, [one.text for one in captions])
            ]
        answers[name] = _answer(captions, tallies[name], bootstrap)
    return {
        "rows": len(rows),
        "level": section.level,
        "less_is_better": sorted(LESS_IS_BETTER),
        "captioners": answers,
        "differences": _differences(tallies, bootstrap),
    }


def _judged(rows: Sequence[TruthRow], captions: Sequence[str], reader: ClaimReader) -> dict[str, list[Tally]]:
    """Tallies of every metric, one for each row; a row that a metric does not know has an empty one."""
    measured = [measure(reader.read(text), row) for row, text in zip(rows, captions, strict=True)]
    names = dict.fromkeys(name for one in measured for name in one)
    return {name: [one.get(name, Tally(0, 0)) for one in measured] for name in names}


def _answer(captions: Sequence[Captioned], tallies: dict[str, list[Tally]], bootstrap: Bootstrap) -> dict[str, Any]:
    figures = {name: bootstrap.figure(one) for name, one in tallies.items()}
    failures = [one.failure for one in captions if one.failure is not None]
    return {
        "figures": {name: asdict(one) for name, one in figures.items() if one is not None},
        "failed": len(failures),
        "first_failure": failures[0] if failures else None,
        "empty": sum(not one.text.strip() for one in captions),
        "words": sum(len(one.text.split()) for one in captions) / len(captions),
    }


def _differences(tallies: dict[str, dict[str, list[Tally]]], bootstrap: Bootstrap) -> dict[str, Any]:
    first, *others = tallies
    out: dict[str, Any] = {}
    for name in others:
        found = {
            metric: bootstrap.difference(tallies[name][metric], tallies[first][metric])
            for metric in tallies[first]
            if metric in tallies[name]
        }
        out[name] = {metric: asdict(one) for metric, one in found.items() if one is not None}
    return out


def _keep(path: Path, rows: Sequence[TruthRow], captions: Sequence[Captioned]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"uid": row.uid, "caption": one.text}, ensure_ascii=False) + "\n"
        for row, one in zip(rows, captions, strict=True)
    ]
    path.write_text("".join(lines), encoding="utf-8")
