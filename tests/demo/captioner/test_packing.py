"""Weights as they ship, and parts for other trainings."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel

from demo.captioner.packing import WEIGHTS, load_packed, pack
from demo.captioner.parts import make_parts
from demo.captioner.start import Shape, make_start
from demo.weights import TRAINED
from fusion.model.assembly import Images, from_parts
from schemas.section import ModelRef


def test_packed_weights_are_within_half_a_step_of_a_row(tmp_path: Path) -> None:
    make_start(tmp_path / "start")
    (tmp_path / "start" / "README.md").write_text("card")
    size = pack(tmp_path / "start", tmp_path / "packed")
    before = load_file(tmp_path / "start" / "model.safetensors")
    trained = {name: weight for name, weight in before.items() if not name.startswith("vision.towers.")}
    assert size < 1.05 * sum(weight.numel() for weight in trained.values())
    model, _ = load_packed(tmp_path / "packed")
    after = model.state_dict()
    assert set(before) == set(after) - {"language_model.lm_head.weight"}
    for name, weight in before.items():
        if weight.ndim == 2 and name in trained:
            step = weight.abs().amax(dim=1, keepdim=True) / 127
            assert ((after[name] - weight).abs() <= 0.51 * step + 1e-7).all()
        else:
            assert torch.allclose(after[name], weight, rtol=1e-3, atol=1e-6)
    assert after["language_model.lm_head.weight"] is not None


def test_a_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    make_start(tmp_path / "start", Shape(hidden=96))
    with pytest.raises(ValueError, match="no captioner of the demo's shape"):
        pack(tmp_path / "start", tmp_path / "packed")
    tensors = load_file(TRAINED / "captioner" / WEIGHTS)
    del tensors["language_model.model.norm.weight"]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="is not a captioner of this version"):
        load_packed(tmp_path)


def test_parts_make_a_model_of_another_connector(tmp_path: Path) -> None:
    make_parts(tmp_path)
    text = AutoModelForCausalLM.from_pretrained(tmp_path / "text").state_dict()
    shipped = load_packed(TRAINED / "captioner")[0].language_model.state_dict()
    assert all(torch.equal(text[name], weight) for name, weight in shipped.items())
    assert len(AutoTokenizer.from_pretrained(tmp_path / "text")) <= len(text["lm_head.weight"])
    assert CLIPVisionModel.from_pretrained(tmp_path / "vision").config.image_size == 160
    parts = {name: ModelRef(model=str(tmp_path / name)) for name in ("vision", "florence", "text", "detail")}
    gated = from_parts(
        parts["vision"],
        parts["text"],
        parts["detail"],
        "conv_gate",
        {"canvas": 320, "roi": 14},
        None,
        Images("stretch"),
    )
    assert gated.model.config.connector == "conv_gate"
    fused = from_parts(
        parts["florence"], parts["text"], connector="dbfusion", connector_options={"canvas": 160, "prompts": [[0, 2]]}
    )
    # As its own processor says, which lies in processor_config.json.
    assert fused.processor.image_processor.image_mean == [0.485, 0.456, 0.406]
