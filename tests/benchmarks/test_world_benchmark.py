"""The benchmark of the scene world: perfect experts are perfect to it, and what it prints is what it counted."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.world.__main__ import main
from benchmarks.world.page import cells, write_page
from benchmarks.world.perception import (
    closed_set_figures,
    depth_stage_figures,
    florence_figures,
    open_set_figures,
    signs_figures,
    tags_figures,
    true_tags,
)
from benchmarks.world.pictures import experts_sheet, judged, judged_sentences, signs_sheet, worst
from benchmarks.world.shots import shoot
from benchmarks.world.table import ROWS, summarised, table
from demo.captions import brief_caption
from demo.metrics.boxes import box_truth, found_boxes
from demo.metrics.depth import mean_map
from demo.split import seeds
from experts.depth import packed
from experts.florence import FlorenceSection

EDGES = ("x1", "y1", "x2", "y2")


@pytest.fixture(scope="module")
def shots():
    return [shoot(seed, ()) for seed in seeds("test", 8, 640)]


def true_rows(truth, score, coloured=False):
    """As an expert would give the true boxes."""
    true = box_truth(truth, coloured)
    return [
        {"label": str(label), "score": score} | dict(zip(EDGES, box.tolist(), strict=True))
        for label, box in zip(true.labels, true.boxes, strict=True)
    ]


@pytest.fixture(scope="module")
def perfect(shots):
    """Priors of experts that know the truth."""
    priors = {name: [] for name in ("tags", "closed_set", "open_set", "ocr", "depth", "florence")}
    for shot in shots:
        boxes, regions = true_rows(shot.truth, 0.9), true_rows(shot.truth, 1.0, coloured=True)
        priors["closed_set"].append({"boxes": boxes})
        priors["open_set"].append({"boxes": boxes})
        priors["florence"].append({"caption": brief_caption(shot.truth), "lines": [], "regions": regions})
        priors["tags"].append({"tags": [{"tag": tag, "score": 1.0} for tag in true_tags(shot.truth)]})
        priors["depth"].append(packed(shot.disparity))
        lines = []
        for item in shot.truth.objects:
            if item.text:
                x1, y1, x2, y2 = item.full_box
                middle = np.array([(x1 + x2) / 2 / shot.truth.width, (0.7 * y1 + 0.3 * y2) / shot.truth.height])
                lines.append({"text": item.text, "score": 1.0, "polygon": np.tile(middle, 4).tolist()})
        priors["ocr"].append({"lines": lines})
    return priors


def test_experts_that_know_the_truth_are_perfect_and_trivial_ones_are_not(shots, perfect):
    boxes = perfect["closed_set"]
    mean = mean_map(np.stack([shoot(seed, ()).disparity for seed in seeds("validation", 3)]))
    figures = tags_figures(shots, perfect["tags"])
    figures |= closed_set_figures(shots, boxes, boxes)
    figures |= open_set_figures(shots, boxes, boxes, boxes)
    figures |= depth_stage_figures(shots, perfect["depth"], mean)
    figures |= signs_figures(shots, perfect["ocr"])
    figures |= florence_figures(shots, perfect["florence"], FlorenceSection())
    rows = {row["figure"]: row for row in table(summarised(figures))}
    assert {"tags.f1", "closed_set.map50", "open_set.map50", "depth.pair_order", "signs.clean"} <= rows.keys()
    assert {"florence.region_named_f1", "florence.caption_placed_f1", "florence.caption_setting"} <= rows.keys()
    for row in rows.values():
        assert row["mean"] == pytest.approx(1, abs=1e-3)
        assert row["baseline"] is None or row["baseline"]["mean"] < 0.97
        assert row["reached"] in (True, None)
    assert figures["signs.stray"] == 0
    assert figures["signs.clean.error_rate"] == 0


def test_what_is_not_seen_costs_recall_and_what_is_not_there_costs_precision(shots, perfect):
    fewer = [{"boxes": prior["boxes"][:1]} for prior in perfect["closed_set"]]
    figures = closed_set_figures(shots, fewer, perfect["closed_set"])
    objects = sum(len(shot.truth.objects) for shot in shots)
    assert (figures["closed_set.precision"], figures["closed_set.recall"]) == (1, len(shots) / objects)
    assert figures["closed_set.map50"] < figures["closed_set.unfiltered.map50"] == 1
    stray = {"text": "x", "score": 1.0, "polygon": [0.0] * 8}
    lines = [{"lines": [*prior["lines"], stray]} for prior in perfect["ocr"]]
    assert signs_figures(shots, lines)["signs.stray"] == 1


def test_sheets_show_what_was_right_and_find_the_worst_scene(shots, perfect):
    perfect = perfect | {"closed_set": [{"boxes": []} if i == 5 else p for i, p in enumerate(perfect["closed_set"])]}
    measured = SimpleNamespace(shots=shots, priors=perfect)
    assert worst(measured, 1) == [5]
    right, missed = judged(found_boxes(perfect["open_set"][0]["boxes"]), box_truth(shots[0].truth))
    assert right.all() and not missed.any()
    right, missed = judged(found_boxes(perfect["closed_set"][5]["boxes"]), box_truth(shots[5].truth))
    assert not len(right) and missed.all()
    sheet = experts_sheet(measured, [5, 0])
    assert len(sheet.getcolors(1 << 20)) > 1000
    assert np.asarray(signs_sheet(measured)).std() > 0


def test_sentences_of_a_caption_are_right_as_often_as_they_are_true(shots):
    truth = max((shot.truth for shot in shots), key=lambda truth: len(truth.objects))
    setting, first, *others = brief_caption(truth).replace(". ", ".|").split("|")
    said = " ".join([first, "A red ball.", setting, first, *others])
    assert judged_sentences(said, truth) == [
        (first, True),
        ("A red ball.", False),
        (setting, True),
        (first, others.count(first) > 0),
        *((sentence, others.count(first) == 0 or sentence != first) for sentence in others),
    ]


def test_what_florence_is_not_asked_for_has_no_figure(shots, perfect):
    figures = florence_figures(shots, perfect["florence"], FlorenceSection(caption="none"))
    assert {name.rsplit(".")[-1] for name in figures} == {"region_f1", "region_named_f1"}


def test_rows_are_judged_by_the_mean_on_the_right_side_of_their_target():
    sets = [{"purity": 0.97, "purity.majority": 0.2, "copies.hit": 0.02}, {"purity": 1.0, "copies.hit": 0.01}]
    figures = summarised(sets)
    assert figures["purity"] == {"mean": pytest.approx(0.985), "least": 0.97, "most": 1.0}
    purity, hit = table(figures)
    assert (purity["reached"], hit["reached"]) == (True, False)
    assert (purity["baseline"]["mean"], hit["baseline"]) == (0.2, None)
    figures_of_purity = ["0.985", "0.970", "1.000", "0.200 (majority class)", "≥ 0.98", "yes"]
    assert cells(purity) == ["k-means purity by setting", *figures_of_purity]
    assert cells(hit)[5:] == ["≤ 0.01", "no"]


def test_the_command_measures_writes_its_page_and_says_the_same_again(tmp_path, capsys, small_weights):
    off = [f"perceive.{name}=null" for name in ("ocr", "depth")]
    models = {
        "embed": "clip",
        "perceive.tags": "tagger",
        "perceive.open_set": "owlv2",
        "perceive.closed_set": "detector",
        "perceive.florence": "florence",
    }
    settings = off + [f"{section}.model={small_weights[family]}" for section, family in models.items()]
    overrides = [word for setting in settings for word in ("--set", setting)]
    main(["--json", "--scenes", "4", "--seed", "640", *overrides, "--page", str(tmp_path / "page.md")])
    answer = json.loads(capsys.readouterr().out)
    assert answer["setting"]["seeds"] == [640]
    assert set(answer["models"]) == set(models)
    measured = {row["figure"] for row in answer["table"]}
    assert measured == {row.figure for row in ROWS if not row.figure.startswith(("depth", "signs"))} & measured
    assert {"purity", "copies.hit", "copies.cropped.found", "tags.f1", "closed_set.map50"} <= measured
    assert answer["figures"]["copies.reencoded.found"]["mean"] == 1  # the hash alone finds these
    assert answer["figures"]["copies.hit"]["mean"] == 0
    page = (tmp_path / "page.md").read_text()
    assert "images/page-experts.jpg" in page and (tmp_path / "images/page-worst.jpg").is_file()
    assert all(" | ".join(cells(row)) in page for row in answer["table"])

    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps(answer))
    main(["--from", str(saved), "--page", str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text() == page
    assert "k-means purity" in capsys.readouterr().out.replace("\n", " ")


def test_a_page_says_that_all_is_well_only_where_it_is(tmp_path):
    setting = {"seeds": [1, 2], "scenes": 3, "split": "test", "overrides": [], "data": "2-0", "mean_map_scenes": 4}
    machine = {"libraries": {}, "python": "3", "architecture": "x", "cores": 1}
    for purity, words in ((0.99, "Every target holds"), (0.5, "**k-means purity by setting** is 0.500")):
        figures = summarised([{"purity": purity}])
        answer = {"setting": setting, "machine": machine, "models": {}, "table": table(figures), "figures": figures}
        write_page(answer | {"sets": []}, tmp_path / "world.md")
        page = (tmp_path / "world.md").read_text()
        assert words in page and "### Tags" not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "perceive.tgas=null"], "did you mean `tags`"),
        (["--seed", "1000"], "not between"),
        (["--from", "/none.json"], "No such file"),
        (["--set", "embed.model=/none"], "does not exist"),
    ],
)
def test_what_cannot_be_measured_is_said_in_words(capsys, monkeypatch, arguments, words):
    monkeypatch.setattr("benchmarks.world.measure.make_weights", lambda folder: None)
    monkeypatch.setattr("benchmarks.world.measure.validation_mean_map", lambda: np.zeros((2, 2)))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
