"""Whole evaluations: captions from every kind of place, figures as JSON, errors in one paragraph."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from benchmarks.fusion.tiny import tiny_config, tiny_model, tiny_processor
from fusion.evaluate.clip_score import PREFIX, ClipScore
from fusion.evaluate.evaluation import evaluate
from fusion.evaluate.section import ClipSection, EvaluateSection
from pipeline.cli import main
from schemas.errors import RequestError, SetupError
from schemas.pictures import decode_rgb
from tests.fakes import chat_engine

COLOURS = ("red", "blue", "green")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of a ball with truth, priors, a vocabulary and right captions."""
    rows, captions = [], []
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{i}.png")
        box = {"label": "ball", "score": 0.9, "x1": 0.1, "y1": 0.1, "x2": 0.5, "y2": 0.5, "anchor": 0}
        rows.append(
            {
                "uid": str(i),
                "image": f"{i}.png",
                "alt_text": "a red ball",
                "priors": {"closed_set": {"boxes": [box, {**box, "label": "crate", "x1": 0.6, "x2": 0.9}]}},
                "objects": [{"category": "ball", "colour": colour}],
                "false_boxes": ["crate"],
            }
        )
        captions.append({"uid": str(i), "caption": f"A {colour} ball."})
    captions.append({"uid": "of another picture", "caption": "A crate."})
    for name, lines in (("truth", rows), ("captions", captions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    vocabulary = {"categories": {"ball": [], "crate": []}, "colours": {colour: [] for colour in COLOURS}}
    (tmp_path / "vocabulary.yaml").write_text(yaml.safe_dump(vocabulary))
    return tmp_path


def section(folder: Path, **further: Any) -> EvaluateSection:
    values = {
        "truth": str(folder / "truth.jsonl"),
        "vocabulary": str(folder / "vocabulary.yaml"),
        "images": str(folder),
        "captioners": {"right": {"kind": "file", "path": str(folder / "captions.jsonl")}, "list": {"kind": "priors"}},
        "resamples": 200,
    }
    return EvaluateSection.model_validate(values | further)


def value(answer: dict[str, Any], captioner: str, metric: str) -> float:
    return answer["captioners"][captioner]["figures"][metric]["value"]


def test_captions_of_a_file_against_the_notes_copied_out(folder: Path) -> None:
    answer = evaluate(section(folder, output=str(folder / "out")))
    assert answer["rows"] == 3
    assert value(answer, "right", "object_f1") == 1
    assert value(answer, "list", "object_precision") == pytest.approx(1 / 6)
    assert value(answer, "list", "category_recall") == 1
    assert value(answer, "list", "false_boxes_repeated") == 1
    assert answer["differences"]["list"]["object_f1"]["value"] == pytest.approx(2 / 9 - 1)
    kept = [json.loads(line) for line in (folder / "out" / "list.jsonl").read_text().splitlines()]
    assert kept[0] == {"uid": "0", "caption": "ball. crate. a red ball."}


def test_notes_can_be_held_back(folder: Path) -> None:
    captioners = {name: {"kind": "priors", "notes": name} for name in ("alt_text", "priors", "nothing")}
    answer = evaluate(section(folder, captioners=captioners, limit=2))
    assert answer["rows"] == 2
    assert value(answer, "alt_text", "object_recall") == 0.5
    assert value(answer, "priors", "object_recall") == 0
    assert value(answer, "priors", "category_recall") == 1
    assert answer["captioners"]["nothing"]["empty"] == 2


def test_captions_of_an_engine(folder: Path) -> None:
    (folder / "0.png").write_bytes(b"no picture")
    with chat_engine.running() as url:
        engine = {"kind": "engine", "engine": {"model": "any", "base_url": url}}
        answer = evaluate(section(folder, captioners={"echo": engine}))
    echo = answer["captioners"]["echo"]
    assert (echo["failed"], echo["empty"]) == (1, 1)
    assert "0.png" in echo["first_failure"]
    # It answers with the prompt, which holds the boxes' labels and the alt text.
    assert value(answer, "echo", "category_recall") == pytest.approx(2 / 3)


def test_an_engine_that_answers_nothing_is_an_error(folder: Path) -> None:
    engine = {"model": "any", "base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(SetupError, match="answered none of 3 requests"):
        evaluate(section(folder, captioners={"gone": {"kind": "engine", "engine": engine, "retries": 0}}))


@pytest.mark.parametrize("connector", ["mlp", "conv_gate"])
def test_captions_of_a_checkpoint_do_not_depend_on_the_batch(folder: Path, connector: str) -> None:
    config = tiny_config(connector)
    tiny_model(connector).save_pretrained(folder / "model")
    tiny_processor(config).save_pretrained(folder / "model")
    captioners = {
        f"by {size}": {"kind": "checkpoint", "model": str(folder / "model"), "max_tokens": 8, "batch_size": size}
        for size in (1, 3)
    }
    captioners["bare"] = {**captioners["by 3"], "notes": "nothing"}
    evaluate(section(folder, captioners=captioners, output=str(folder / "out")))
    texts = [(folder / "out" / f"{name}.jsonl").read_text() for name in captioners]
    assert texts[0] == texts[1] != texts[2]


def test_a_folder_that_is_no_checkpoint_is_said(folder: Path) -> None:
    with pytest.raises(SetupError, match="does not load"):
        evaluate(section(folder, captioners={"x": {"kind": "checkpoint", "model": str(folder)}}))


def test_clip_score_is_the_papers(folder: Path, small_weights: dict[str, Path]) -> None:
    import open_clip

    name = f"local-dir:{small_weights['clip']}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    files, captions = [folder / "0.png", folder / "1.png"], ["a red ball", " "]
    with torch.inference_mode():
        image = model.eval().encode_image(transform(decode_rgb(files[0].read_bytes()))[None], normalize=True)
        text = model.encode_text(open_clip.get_tokenizer(name)([PREFIX + captions[0]]), normalize=True)
    scores = ClipScore(ClipSection(model=str(small_weights["clip"]))).scores(files, captions)
    assert scores == pytest.approx([2.5 * max(float((image * text).sum()), 0), 0], abs=1e-5)
    answer = evaluate(section(folder, clip={"model": str(small_weights["clip"])}))
    assert 0 < value(answer, "right", "clip_score") <= 2.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"captions.jsonl": '{"uid": "0", "caption": "x"}\n'},
            "no caption of 2 of 3 rows of the truth, the first is 1",
        ),
        ({"captions.jsonl": '{"uid": "0"}\n'}, "line 1: not an object with uid and caption"),
        ({"captions.jsonl": '{"uid": "0", "caption": 3}\n'}, "line 1: uid and caption must be text"),
        ({"captions.jsonl": None}, "There is no file of captions"),
        ({"truth.jsonl": "{}\n"}, "line 1 is no truth record: uid"),
    ],
)
def test_bad_files_are_said_in_one_paragraph(
    folder: Path, changes: dict[str, str | None], words: str, monkeypatch: Any, capsys: Any
) -> None:
    for name, content in changes.items():
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
    config = folder / "evaluation.yaml"
    config.write_text(yaml.safe_dump(section(folder).model_dump(mode="json")))
    monkeypatch.setattr(sys, "argv", ["densefusion", "evaluate", str(config)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_missing_picture_is_said(folder: Path) -> None:
    (folder / "1.png").unlink()
    engine = {"kind": "engine", "engine": {"model": "any", "base_url": "http://127.0.0.1:9/v1"}}
    with pytest.raises(RequestError, match=r"1\.png of row 1 is not there"):
        evaluate(section(folder, captioners={"x": engine}))


def test_the_command_prints_a_table_and_json(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    config = folder / "evaluation.yaml"
    config.write_text(yaml.safe_dump(section(folder).model_dump(mode="json")))
    monkeypatch.setattr(sys, "argv", ["densefusion", "evaluate", str(config), "--set", "limit=2"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    table = capsys.readouterr().out
    assert "object_f1" in table and "1.000 [1.000, 1.000]" in table and "2 pictures" in table
    monkeypatch.setattr(sys, "argv", ["densefusion", "evaluate", str(config), "--json"])
    with pytest.raises(SystemExit):
        main()
    answer = json.loads(capsys.readouterr().out)
    assert answer["captioners"]["right"]["figures"]["object_f1"]["n"] == 6
