"""The table of designs counts what follows from the published shapes."""

import json

import pytest

from benchmarks.fusion import designs

BY_NAME = {design.name: design for design in designs.DESIGNS}


def test_llava_is_counted_as_its_shapes_say():
    counted = designs.figures(BY_NAME["LLaVA-1.5, DenseFusion"])
    assert counted.tokens == 576
    assert counted.towers_m == pytest.approx(303.507, abs=0.001)  # CLIP ViT-L/14-336 without its text tower
    assert counted.connector_m * 1e6 == 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    # A transformer's block costs 24 d^2 a token, and 4 d for each pair of tokens.
    blocks = 24 * (24 * 577 * 1024**2 + 4 * 577**2 * 1024) / 1e9
    assert 0.9 * blocks < counted.vision_gflop < 1.1 * (blocks + 2 * 576 * counted.connector_m / 1e3)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("LLaVA-1.6, the caption engine", 2928),
        ("Dense Connector, STI", 720),
        ("Dense Connector, DCI, SigLIP", 729),
        ("MG-LLaVA", 576 + designs.BOXES),
        ("Florence-VL", 576),
    ],
)
def test_visual_tokens_are_the_published_ones(name, tokens):
    assert designs.figures(BY_NAME[name]).tokens == tokens


def test_the_page_has_a_row_for_each_design(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(designs, "DESIGNS", designs.DESIGNS[:2])
    designs.main(["--json", "--page", str(tmp_path / "designs.md")])
    names = [row["design"] for row in json.loads(capsys.readouterr().out)]
    page = (tmp_path / "designs.md").read_text()
    assert names == [design.name for design in designs.DESIGNS]
    assert all(page.count(f"| {name} |") == 2 for name in names)
