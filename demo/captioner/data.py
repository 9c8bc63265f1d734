"""Writes pictures and rows: a folder that `densefusion train` learns from, or that `densefusion evaluate` judges by."""

import functools
import io
import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from PIL import Image

from demo.alt_text import alt_text
from demo.captioner.noise import HARDER, MEASURED, NoiseModel
from demo.captioner.perceived import Perceived, demo_experts
from demo.captioner.rows import BARE, Row, caption, rows
from demo.captioner.truth import VOCABULARY, truth_record
from demo.encodings import jpeg
from demo.scene import Scene, render, scene_size
from demo.split import Split, seeds
from demo.train.pool import small_size

ROWS, IMAGES, VOCABULARY_FILE = "rows.jsonl", "images", "vocabulary.yaml"
PriorsKind = Literal["harder", "measured", "experts"]
PRIORS: tuple[PriorsKind, ...] = get_args(PriorsKind)
_NOISES: dict[PriorsKind, NoiseModel] = {"harder": HARDER, "measured": MEASURED}
_PER_FOLDER = 1000
_AT_ONCE = 16
"""Pictures that the experts look at together."""


@dataclass(frozen=True)
class DataSettings:
    """What is written.

    Attributes:
        first: number of the split's first scene.
        draws: rows of each scene of the training split, each with errors of its own; other splits have one.
        priors: by the noise model, with more errors than the experts make or with as many; or by the experts
            themselves, who look at pictures as large as the demo's web serves them.
        bare: share of the training split's rows that have no notes.
        repairs: share of its others that are repairs: a caption with faults, what the checks find, a better one.
    """

    split: Split
    scenes: int
    first: int = 0
    draws: int = 1
    priors: PriorsKind = "harder"
    bare: float = BARE
    repairs: float = 0.0

    @property
    def full_size(self) -> bool:
        """Whether pictures are as large as the web serves them; else a long edge of 240 to 360 px, at a fifth of the
        cost: the captioner's tower sees 160 px."""
        return self.split != "train"


def write_data(settings: DataSettings, out: Path, workers: int = 1) -> int:
    """Write OUT/images/NNN/SEED.jpg, OUT/rows.jsonl and OUT/vocabulary.yaml; returns the number of rows.

    Rows of another split than `train` are truth records, too. The file of rows is whole or not there.

    Args:
        workers: processes that render; the experts look in this one.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(VOCABULARY, sort_keys=False, allow_unicode=True)
    (out / VOCABULARY_FILE).write_text(text, encoding="utf-8")
    draft, count = out / f"{ROWS}.draft", 0
    with draft.open("w", encoding="utf-8") as file:
        for line in _seen_lines(settings, out) if settings.priors == "experts" else _lines(settings, out, workers):
            file.write(line)
            count += 1
    draft.replace(out / ROWS)
    return count


def _lines(settings: DataSettings, out: Path, workers: int) -> Iterator[str]:
    """Rows with priors by the noise model."""
    task: Callable[[int], list[str]] = functools.partial(_scene_lines, settings, out)
    if workers == 1:
        yield from itertools.chain.from_iterable(map(task, range(settings.scenes)))
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from itertools.chain.from_iterable(pool.imap(task, range(settings.scenes), chunksize=32))


def _scene_lines(settings: DataSettings, out: Path, number: int) -> list[str]:
    scene, name, _ = _picture(settings, out, number)
    noise = _NOISES[settings.priors]
    if settings.split == "train":
        made = list(rows(scene.truth, settings.draws, noise, settings.bare, settings.repairs))
    else:
        made = list(rows(scene.truth, 1, noise, bare=0.0))
    return [_line(settings, row, f"{scene.truth.seed}-{i}", name) for i, row in enumerate(made)]


def _seen_lines(settings: DataSettings, out: Path) -> Iterator[str]:
    """Rows with the experts' own priors and the alt text that the web has."""
    with demo_experts() as experts:
        for start in range(0, settings.scenes, _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, settings.scenes))
            yield from _some_seen(settings, out, experts, numbers)


def _some_seen(settings: DataSettings, out: Path, experts: Perceived, numbers: range) -> Iterator[str]:
    pictures = [_picture(settings, out, number) for number in numbers]
    for (scene, name, _), priors in zip(pictures, experts.of([one[2] for one in pictures]), strict=True):
        priors = {expert: _without_map(prior) for expert, prior in priors.items()}
        row = Row(scene.truth, caption(scene.truth, priors), alt_text(scene.truth), priors)
        yield _line(settings, row, str(scene.truth.seed), name)


def _without_map(prior: dict[str, Any]) -> dict[str, Any]:
    """A depth prior holds its map as bytes, which the prompt does not show."""
    return {column: value for column, value in prior.items() if not isinstance(value, bytes)}


def _picture(settings: DataSettings, out: Path, number: int) -> tuple[Scene, str, Image.Image]:
    """The scene of a number, the name of its picture's file, which is written, and the picture as it is read there."""
    seed = seeds(settings.split, 1, settings.first + number)[0]
    scene = render(seed, scene_size(seed) if settings.full_size else small_size(seed))
    name = f"{IMAGES}/{number // _PER_FOLDER:03}/{seed}.jpg"
    data = jpeg(scene.image)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        return scene, name, image.convert("RGB")


def _line(settings: DataSettings, row: Row, uid: str, image: str) -> str:
    record = row.as_json(uid, image)
    if settings.split != "train":
        record |= truth_record(row)
    return json.dumps(record, ensure_ascii=False) + "\n"
