"""What the experts' published models cost: sizes are the publishers', and what is counted is what it says."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.experts import costs
from benchmarks.experts.costs import GEOMETRY, MODELS, PUBLISHED, Model, Part, cost, flop, gpu_hours
from experts.aesthetic import AestheticSection
from experts.closed_set_detectors.base import ClosedSetSection
from experts.depth import DepthSection
from experts.florence import FlorenceSection
from experts.nsfw import NsfwSection
from experts.open_set_detectors.base import GROUNDING_DINO_MODEL, OpenSetSection
from experts.readers.base import OcrSection
from experts.taggers.base import RAM_PLUS_MODEL, TagsSection
from experts.watermark import WatermarkSection

PAGE = Path(__file__).parents[2] / "docs/experts.md"
BY_NAME = {model.name: model for model in MODELS}


def test_every_default_model_is_there_and_says_where_its_sizes_come_from():
    ocr = OcrSection()
    defaults = {RAM_PLUS_MODEL, GROUNDING_DINO_MODEL, ocr.det_model, ocr.rec_model}
    sections = (TagsSection, OpenSetSection, ClosedSetSection, DepthSection, FlorenceSection)
    for section in (*sections, AestheticSection, NsfwSection, WatermarkSection):
        defaults.add(section().model)
    assert defaults <= set(BY_NAME)
    assert set(GEOMETRY) == set(BY_NAME) >= set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_as_many_values_as_its_publisher_states(name):
    counted = cost(BY_NAME[name])
    exact = PUBLISHED[name] == 21_993_025
    assert counted["values"] == pytest.approx(PUBLISHED[name], rel=0 if exact else 0.03)
    assert counted["half_bytes"] == 2 * counted["parameters"] <= 2 * counted["values"]
    row = (
        f"{counted['parameters'] / 1e6:.1f} M | {counted['half_bytes'] / 1e6:,.0f} | {counted['gflop_per_image']:,.0f}"
    )
    assert f"| {row} | {gpu_hours(counted['gflop_per_image']):.2f} |" in PAGE.read_text(encoding="utf-8")


def test_products_convolutions_and_attention_are_counted_and_nothing_else():
    conv = torch.nn.Conv2d(3, 8, 4, stride=4)
    pixels = torch.empty(1, 3, 32, 16)
    assert flop(lambda model: model(pixels).relu().softmax(1), conv) == 2 * (8 * 4) * 8 * (3 * 4 * 4)
    query = torch.empty(1, 2, 10, 16)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert flop(lambda model: attend(query, query, query), None) == 2 * 2 * (2 * 10 * 10 * 16)


def test_parts_are_taken_off_shared_and_counted_as_often_as_they_run():
    def reads(rows):
        return lambda model: model(torch.empty(rows, 4))

    parts = (Part("image", reads(1)), Part("line", reads(11), times=3, less=reads(1), share=5))
    name = next(iter(GEOMETRY))
    counted = cost(Model("tags", name, lambda: torch.nn.Linear(4, 8), parts))
    assert counted["parameters"] == 40
    assert [part["gflop"] * 1e9 for part in counted["parts"]] == pytest.approx([64, 128])
    assert counted["gflop_per_image"] * 1e9 == pytest.approx(64 + 3 * 128)


def test_models_that_go_by_values_leave_nothing_behind():
    assert cost(BY_NAME[GROUNDING_DINO_MODEL])["gflop_per_image"] > 0
    assert torch.ones(2).sum().item() == 2


def test_hours_are_work_over_rate():
    # 989 TFLOP/s at 0.3 do 296.7 TFLOP a second, so an image of that takes one.
    assert gpu_hours(296_700, images=7200) == pytest.approx(2)


def test_it_answers_as_a_table_and_as_json(capsys):
    costs.main(["--json", "--expert", "nsfw"])
    answer = json.loads(capsys.readouterr().out)
    (one,) = answer["costs"]
    assert one["gpu_hours_per_million_images"] == pytest.approx(gpu_hours(one["gflop_per_image"]))
    assert 0 < answer["setting"]["mfu"] < 1
    costs.main(["--expert", "nsfw"])
    assert "85.8 M" in capsys.readouterr().out
