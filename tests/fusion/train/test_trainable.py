"""What is trained, by parameter name."""

import re

import pytest

from benchmarks.fusion.tiny import tiny_model
from fusion.train.section import Group, TrainSection
from fusion.train.trainable import described, names_of, set_trainable
from schemas.errors import RequestError


def section(*trainable: Group, **more: object) -> TrainSection:
    values = {
        "output": "out",
        "model": {"checkpoint": {"model": "x"}},
        "data": {"sources": [{"format": "llava", "path": "x"}]},
        "trainable": list(trainable),
        "learning_rate": 1e-3,
        **more,
    }
    return TrainSection.model_validate(values)


def test_the_upper_half_of_a_vit_is_its_later_blocks_and_nothing_else() -> None:
    names = names_of(tiny_model("mlp"), "vision_upper_half")
    block = r"vision\.towers\.vision\.model\.encoder\.layers\.([23])\."
    parts = r"(self_attn\.[qkv]_proj|self_attn\.out_proj|layer_norm[12]|mlp\.fc[12])\.(weight|bias)"
    assert all(re.fullmatch(block + parts, name) for name in names)
    assert len(names) == 2 * 16  # blocks 2 and 3 of 0 to 3; no embeddings, no norm outside of blocks


@pytest.mark.parametrize(
    ("connector", "group", "pattern"),
    [
        ("mlp", "connector", r"vision\.connector\.projector\.[02]\.(weight|bias)"),
        ("conv_gate", "connector", r"vision\.connector\.(fuse|projector|box_projector)\..*"),
        ("conv_gate", "gate", r"vision\.connector\.fuse\.gate\.[02]\.(weight|bias)"),
        ("conv_gate", "detail", r"vision\.towers\.detail\.model\._backbone\..*"),
        ("mlp", "vision", r"vision\.towers\.vision\.model\.(embeddings|pre_layrnorm|encoder|post_layernorm)\..*"),
        ("dbfusion", "vision", r"vision\.towers\.vision\.(vision_tower|multi_modal_projector|encoder)\..*"),
        ("mlp", "language_model", r"language_model\.(model|lm_head)\..*"),
    ],
)
def test_a_group_is_all_parameters_of_that_name(connector: str, group: Group, pattern: str) -> None:
    model = tiny_model(connector)
    names = names_of(model, group)
    assert names == [name for name, _ in model.named_parameters() if re.fullmatch(pattern, name)]
    assert names


def test_anyress_newline_is_trained_with_the_connector() -> None:
    assert "vision.image_newline" in names_of(tiny_model("mlp", anyres=True), "connector")


@pytest.mark.parametrize(
    ("connector", "group"),
    [("mlp", "gate"), ("mlp", "detail"), ("dbfusion", "vision_upper_half")],
)
def test_a_group_that_the_model_lacks_is_refused(connector: str, group: Group) -> None:
    with pytest.raises(RequestError, match=f"no parameters of the group {group}.*connector is {connector}"):
        set_trainable(tiny_model(connector), section(group))


def test_gradients_reach_what_is_trained_and_a_part_has_its_own_rate() -> None:
    model = tiny_model("conv_gate")
    chosen = section("connector", "gate", "vision", "vision_upper_half", learning_rates={"gate": 1e-2, "vision": 1e-6})
    groups = set_trainable(model, chosen)
    assert {group.name: group.learning_rate for group in groups} == {
        "connector": 1e-3,
        "gate": 1e-2,
        "vision": 1e-6,
        "vision_upper_half": 1e-3,
    }
    names = [name for group in groups for name in group.parameters]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(names) == set(names_of(model, "connector")) | set(names_of(model, "vision"))
    told = described(model, groups)
    lines = {line.split()[0]: line.split()[1:] for line in told.splitlines()[1:]}
    assert set(lines) == {"connector", "gate", "vision", "vision_upper_half", "frozen"}
    total = sum(p.numel() for p in model.parameters()) / 1e6
    assert sum(float(line[1]) for line in lines.values()) == pytest.approx(total, abs=5e-3)
    assert lines["gate"][2] == "0.01" and lines["frozen"][2] == "-"


def test_a_tower_that_is_not_trained_stays_in_evaluation_mode() -> None:
    model = tiny_model("conv_gate")
    set_trainable(model, section("connector", "vision_upper_half"))
    model.train()
    towers = model.vision.towers
    assert towers.vision.training and not towers.detail.training
    assert model.language_model.training and model.vision.connector.training
