"""Folders of rows: what training and evaluation read, with captions that are right by the evaluation's own metrics."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from demo.captioner.__main__ import main
from demo.captioner.data import DataSettings, write_data
from demo.captioner.repairing import faults
from demo.captioner.rows import BARE, PROMPT, rows
from demo.captioner.truth import VOCABULARY, false_boxes
from demo.captions import dense_caption
from demo.scene import render
from demo.split import seeds, split_of
from fusion.checks import Finding
from fusion.evaluate.metrics import LESS_IS_BETTER, measure
from fusion.evaluate.reader import ClaimReader
from fusion.evaluate.truth import read_truth
from fusion.evaluate.vocabulary import Vocabulary, read_vocabulary
from fusion.priors import Priors


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tested")
    write_data(DataSettings("test", 25, first=501_000_000, priors="harder"), out)
    return out


def test_training_rows_hold_what_training_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "--scenes", "6", "--draws", "3", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "18 rows" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len({line["uid"] for line in lines}) == 18
    for line in lines:
        assert set(line) == {"uid", "image", "caption", "alt_text", "priors"}
        with Image.open(tmp_path / line["image"]) as image:
            assert 240 <= max(image.size) <= 360
        assert split_of(int(line["uid"].split("-")[0])) == "train"
    again = tmp_path / "again"
    main([*command[:-1], str(again)])
    assert (again / "rows.jsonl").read_bytes() == (tmp_path / "rows.jsonl").read_bytes()


def test_repairs_are_rows_with_a_first_answer_that_has_more_findings(tmp_path: Path) -> None:
    main(["data", "--scenes", "12", "--draws", "2", "--bare", "0", "--repairs", "0.7", "--out", str(tmp_path)])
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    repairs = [line for line in lines if "first" in line]
    assert len(lines) == 24 and 10 <= len(repairs) <= 22
    for line in repairs:
        priors = Priors.of(line["priors"])
        ends = [[{"kind": str(one.kind), "detail": one.detail} for one in found] for found in _both_ends(line, priors)]
        assert line["findings"] in ends and line["findings"]
        assert len(faults(line["caption"], priors)) < len(line["findings"])


def _both_ends(line: dict[str, Any], priors: Priors) -> list[list[Finding]]:
    """What is found if the first answer was whole, and if its tokens ran out."""
    return [faults(line["first"], priors, end) for end in ("stop", "length")]


def test_captions_are_right_by_every_metric(tested: Path) -> None:
    vocabulary = read_vocabulary(tested / "vocabulary.yaml")
    reader = ClaimReader(vocabulary)
    for row in read_truth(tested / "rows.jsonl", vocabulary):
        assert row.caption is not None
        for name, tally in measure(reader.read(row.caption), row).items():
            if name in LESS_IS_BETTER:
                assert tally.hits == 0, (name, row.caption)
            elif name != "text_recall":  # it quotes only what was read
                assert tally.hits == tally.out_of, (name, row.caption)


def test_the_vocabulary_is_valid_and_finds_the_dense_caption_of_every_scene() -> None:
    reader = ClaimReader(Vocabulary.model_validate(yaml.safe_load(yaml.safe_dump(VOCABULARY))))
    for seed in seeds("validation", 60):
        truth = render(seed, (160, 128)).truth
        claims = reader.read(dense_caption(truth))
        found = [(next(iter(one.colours)), one.category) for one in claims.objects]
        assert found == [(item.colour, item.category) for item in truth.objects]


def test_bare_rows_have_no_notes_and_no_text_of_signs() -> None:
    made = [row for seed in seeds("train", 60) for row in rows(render(seed, (160, 128)).truth, 3)]
    bare = [row for row in made if row.alt is None]
    assert len(bare) / len(made) == pytest.approx(BARE, abs=0.08)
    assert all(row.priors == {} and '"' not in row.caption for row in bare)
    quoting = [row for row in made if '"' in row.caption]
    assert all(any(line["text"] in row.caption for line in row.priors["ocr"]["lines"]) for row in quoting)
    assert quoting


def test_false_boxes_are_those_that_no_object_has_for_itself() -> None:
    truth = next(t for seed in seeds("validation", 50) if len((t := render(seed).truth).objects) > 2)
    item = truth.objects[0]
    x1, y1, x2, y2 = (edge / side for edge, side in zip(item.visible_box, (truth.width, truth.height) * 2, strict=True))

    def box(label: str, score: float, shift: float = 0.0) -> dict[str, object]:
        corners = {"x1": x1 + shift, "y1": y1, "x2": x2 + shift, "y2": y2}
        return {"label": label, "score": score, "anchor": 0, **corners}

    other = next(c for c in VOCABULARY["categories"] if c not in {o.category for o in truth.objects})
    shown = [box(item.category, 0.9), box(other, 0.8), box(item.category, 0.5, shift=0.3 * (x2 - x1))]
    priors = Priors.of({"closed_set": {"boxes": shown, "error": None}})
    assert false_boxes(truth, priors, PROMPT) == sorted([other, item.category])


def test_the_experts_own_priors(tmp_path: Path) -> None:
    count = write_data(DataSettings("test", 3, first=502_000_000, priors="experts"), tmp_path)
    vocabulary = read_vocabulary(tmp_path / "vocabulary.yaml")
    found = read_truth(tmp_path / "rows.jsonl", vocabulary)
    assert len(found) == count == 3
    assert all(row.priors.keys() == {"tags", "open_set", "closed_set", "ocr", "depth"} for row in found)
    boxes = sum(len(row.priors["closed_set"]["boxes"]) for row in found)
    assert boxes == pytest.approx(sum(len(row.objects) for row in found), abs=2)
