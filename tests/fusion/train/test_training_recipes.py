"""Every recipe, resolved against parts that are small: what it trains, by parameter name, and how."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fusion.tiny import OPTIONS
from fusion.train.run import Training, prepare
from fusion.train.section import RECIPES, Group, TrainSection, load_section

NAMES = {
    "connector": r"vision\.connector\..*|vision\.image_newline",
    "vision": r"vision\.towers\.vision\..*",
    "vision_upper_half": r"vision\.towers\.vision\.model\.encoder\.layers\.[23]\..*",
    "language_model": r"language_model\..*",
}


@dataclass(frozen=True)
class Expected:
    """What a recipe comes to; defaults are what most have."""

    connector: str
    template: str
    fit: str | None
    rates: dict[Group, float]
    batch: int
    per_device: int
    length: int
    sharding: str
    warmup: float = 0.03
    epochs: float = 1
    grouped: bool = False
    precision: str = "bf16"
    seed: int = 42
    start: str = "checkpoint"
    model: dict[str, str] = field(default_factory=dict)


CLIP, VICUNA = "openai/clip-vit-large-patch14-336", "lmsys/vicuna-7b-v1.5"
PARTS = {"vision": CLIP, "text": VICUNA}
FLORENCE = {"vision": "florence-community/Florence-2-large-ft", "text": "meta-llama/Llama-3.1-8B-Instruct"}
PHI = {**FLORENCE, "text": "microsoft/Phi-3.5-mini-instruct"}
MG = {**PARTS, "detail": "timm/convnext_large_mlp.clip_laion2b_ft_soup_320"}


def rates(rate: float, *groups: Group) -> dict[Group, float]:
    return dict.fromkeys(groups, rate)


def both(rate: float) -> dict[Group, float]:
    return rates(rate, "connector", "language_model")


ALL: tuple[Group, ...] = ("connector", "vision", "language_model")
HALF: tuple[Group, ...] = ("connector", "vision_upper_half", "language_model")

TABLE = {
    "densefusion-prealign": Expected(
        "mlp", "plain", "crop", rates(1e-3, "connector"), 256, 16, 2000, "zero3", start="parts", model=PARTS
    ),
    "densefusion-prealign-paper": Expected(
        "mlp", "plain", "crop", rates(2e-5, "connector"), 256, 16, 2000, "zero3", 0.01, start="parts", model=PARTS
    ),
    "densefusion-pretrain": Expected("mlp", "plain", "crop", rates(2e-5, *HALF), 256, 8, 2100, "zero3"),
    "densefusion-pretrain-paper": Expected("mlp", "plain", "crop", rates(2e-5, *HALF), 256, 8, 2100, "zero3", 0.01),
    "densefusion-instruct": Expected("mlp", "vicuna_v1", "pad", both(2e-5), 128, 8, 2048, "zero3", grouped=True),
    "densefusion-instruct-paper": Expected(
        "mlp", "vicuna_v1", "pad", both(2e-5), 128, 8, 2048, "zero3", 0.01, grouped=True
    ),
    "densefusion-s2-prealign": Expected(
        "s2", "plain", "crop", rates(1e-3, "connector"), 256, 16, 2000, "zero3", start="parts", model=PARTS
    ),
    "densefusion-s2-pretrain": Expected("s2", "plain", "crop", rates(2e-5, *HALF), 256, 8, 2100, "zero3"),
    "densefusion-s2-instruct": Expected("s2", "vicuna_v1", "pad", both(2e-5), 128, 8, 2048, "zero3", grouped=True),
    "caption-engine": Expected(
        "mlp",
        "vicuna_v1",
        None,
        both(2e-5),
        128,
        4,
        4096,
        "zero3",
        epochs=2,
        start="llava",
        model={"llava": "llava-hf/llava-v1.6-vicuna-7b-hf"},
    ),
    "dense-connector-stage1": Expected(
        "dci", "plain", "crop", rates(1e-3, "connector"), 256, 32, 2048, "zero2", start="parts", model=PARTS
    ),
    "dense-connector-stage2": Expected("dci", "vicuna_v1", "pad", both(2e-5), 128, 16, 2048, "zero3", grouped=True),
    "dense-connector-stage2-vit": Expected(
        "dci", "vicuna_v1", "pad", {**both(2e-5), "vision": 2e-6}, 128, 16, 2048, "zero3", grouped=True
    ),
    "mg-llava-pretrain": Expected(
        "conv_gate",
        "vicuna_v1",
        "pad",
        rates(1e-3, "connector"),
        256,
        32,
        2148,
        "zero2",
        precision="fp16",
        seed=2024,
        start="parts",
        model=MG,
    ),
    "mg-llava-sft": Expected(
        "conv_gate",
        "vicuna_v1",
        "pad",
        both(2e-5),
        128,
        16,
        2148,
        "zero2",
        grouped=True,
        precision="fp16",
        seed=2024,
    ),
    "florence-vl-pretrain-8b": Expected(
        "dbfusion", "plain", "stretch", both(1e-5), 2048, 16, 2048, "zero3", start="parts", model=FLORENCE
    ),
    "florence-vl-pretrain-8b-paper": Expected(
        "dbfusion", "plain", "stretch", rates(2e-5, *ALL), 256, 16, 2048, "zero3", start="parts", model=FLORENCE
    ),
    "florence-vl-sft-8b": Expected("dbfusion", "llama_3", "pad", both(1e-5), 512, 8, 2048, "zero2", grouped=True),
    "florence-vl-sft-8b-paper": Expected("dbfusion", "llama_3", "pad", both(1e-5), 256, 8, 2048, "zero2", grouped=True),
    "florence-vl-pretrain-3b": Expected(
        "dbfusion", "plain", "stretch", both(1e-5), 4096, 32, 2048, "zero2", start="parts", model=PHI
    ),
    "florence-vl-pretrain-3b-paper": Expected(
        "dbfusion", "plain", "stretch", rates(1e-4, *ALL), 4096, 32, 2048, "zero2", start="parts", model=PHI
    ),
    "florence-vl-sft-3b": Expected(
        "dbfusion", "phi_3", "pad", both(9e-5), 4096, 32, 2048, "zero2", epochs=3, grouped=True
    ),
    "florence-vl-sft-3b-paper": Expected(
        "dbfusion", "phi_3", "pad", both(9e-5), 2048, 32, 2048, "zero2", epochs=3, grouped=True
    ),
}


def test_every_recipe_is_in_the_table() -> None:
    assert set(RECIPES.names()) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_has_the_published_values(name: str) -> None:
    section, expected = load_section(name, []), TABLE[name]
    assert section.name == name and section.output == f"runs/train/{name}"
    given = {kind: ref.model for kind in ("vision", "text", "detail", "llava") if (ref := getattr(section.model, kind))}
    assert given == expected.model
    if section.model.checkpoint is not None:  # a stage starts from what the one before leaves
        before = section.model.checkpoint.model.removeprefix("runs/train/").removesuffix("/model")
        assert before in TABLE and TABLE[before].connector == expected.connector
    assert section.model.fit == expected.fit
    assert section.template == expected.template
    assert section.sharding == expected.sharding and section.precision == expected.precision
    assert section.batch_size == expected.batch and section.per_device_batch == expected.per_device
    assert section.gradient_checkpointing and section.weight_decay == 0
    if name == "caption-engine":
        [source] = section.data.sources
        assert source.format == "rows" and source.limit == 100_000 and source.prompt is not None


@pytest.mark.parametrize("name", TABLE)
def test_a_recipe_trains_what_was_published_and_as(
    name: str, parts: Callable[[str], str], tmp_path: Path, pictures: Path
) -> None:
    section, expected = load_section(name, []), TABLE[name]
    training = prepare(_small(section, expected, parts, tmp_path, pictures))
    model, trainer = training.assembled.model, training.trainer
    assert model.config.connector == expected.connector
    pattern = "|".join(NAMES[group] for group in expected.rates)
    trained = {parameter for parameter, p in model.named_parameters() if p.requires_grad}
    assert trained == {parameter for parameter, _ in model.named_parameters() if re.fullmatch(pattern, parameter)}
    assert {group.name for group in training.groups} == set(expected.rates)
    _check_optimizer(training, expected)
    arguments = trainer.args
    assert arguments.warmup_steps == expected.warmup and arguments.lr_scheduler_type == "cosine"
    assert arguments.num_train_epochs == expected.epochs and arguments.max_steps == -1
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == expected.batch
    assert (arguments.adam_beta1, arguments.adam_beta2, arguments.max_grad_norm) == (0.9, 0.999, 1.0)
    assert arguments.seed == expected.seed and arguments.gradient_checkpointing
    images = training.assembled.processor.image_processor
    assert images.fit == (expected.fit or "pad")
    assert bool(images.image_grid_pinpoints) == (expected.start == "llava")
    if expected.start == "parts" and expected.connector != "dbfusion":
        assert images.image_mean == [0.4, 0.5, 0.6]  # as the tower's own image processor says


def _check_optimizer(training: Training, expected: Expected) -> None:
    optimizer = training.trainer.create_optimizer()
    assert type(optimizer).__name__ == "AdamW"
    names = {id(p): name for name, p in training.assembled.model.named_parameters()}
    found: dict[str, float] = {}
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 0
        found |= {names[id(p)]: group["lr"] for p in group["params"]}
    wanted = {name: group.learning_rate for group in training.groups for name in group.parameters}
    assert found == wanted
    assert {group.name: group.learning_rate for group in training.groups} == expected.rates


def _small(
    section: TrainSection, expected: Expected, parts: Callable[[str], str], tmp_path: Path, pictures: Path
) -> TrainSection:
    """The recipe with small parts and rows of the same format, on one process without DeepSpeed."""
    values = section.model_dump(mode="json")
    stand_ins = {
        "vision": "florence" if expected.connector == "dbfusion" else "clip",
        "text": "text",
        "detail": "detail",
        "llava": "llava_next",
        "checkpoint": expected.connector,
    }
    for kind, stand_in in stand_ins.items():
        if values["model"][kind] is not None:
            values["model"][kind] = {"model": parts(stand_in)}
    values["model"]["connector_options"] = json.loads(json.dumps(OPTIONS.get(expected.connector, {})))
    values["data"]["sources"] = [_rows_of(source, tmp_path, pictures) for source in values["data"]["sources"]]
    precision = "bf16" if expected.precision == "fp16" else expected.precision  # fp16 needs a GPU
    return TrainSection.model_validate(
        {
            **values,
            "output": str(tmp_path / "out"),
            "sharding": "none",
            "precision": precision,
            "max_length": expected.length,
        }
    )


def _rows_of(source: dict[str, Any], folder: Path, pictures: Path) -> dict[str, Any]:
    row = {
        "llava": {
            "id": "1",
            "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "Red."}],
        },
        "densefusion": {"image_id": "red", "caption": "Red."},
        "rows": {"caption": "Red.", "priors": {}},
    }[source["format"]]
    path = folder / f"{source['format']}.jsonl"
    path.write_text(json.dumps({**row, "image": "red.png"}) + "\n")
    boxes = folder / "boxes.jsonl"
    boxes.write_text(json.dumps({"id": "1", "boxes": [[0, 0, 9, 9]], "scores": [0.9], "labels": ["wall"]}) + "\n")
    with_boxes = {"boxes": str(boxes)} if source.get("boxes") else {}
    return {**source, "path": str(path), "images": str(pictures), **with_boxes}
