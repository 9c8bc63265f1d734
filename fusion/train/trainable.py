"""What is trained: names for sets of parameters, and what each of them is in a given model."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusion.train.section import Group, TrainSection
from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.modeling import FusionForConditionalGeneration

_BLOCK = re.compile(r"^vision\.towers\.vision\.model\.(?:\w+\.)*?encoder\.layers\.(\d+)\.")
_GATE = re.compile(r"^vision\.connector\.(?:\w+\.)*gate\.")
_ANYWHERE: dict[Group, tuple[str, ...]] = {
    "connector": ("vision.connector.", "vision.image_newline"),
    "vision": ("vision.towers.vision.",),
    "detail": ("vision.towers.detail.",),
    "language_model": ("language_model.",),
}
_INSIDE: dict[Group, Group] = {"gate": "connector", "vision_upper_half": "vision"}
"""Groups that are part of another; where both are trained, the part has its own rate."""


@dataclass(frozen=True)
class TrainedGroup:
    """One group of a model: its rate, and its parameters by name."""

    name: Group
    learning_rate: float
    parameters: dict[str, int]
    """Name and number of elements."""

    @property
    def size(self) -> int:
        return sum(self.parameters.values())


def names_of(model: "FusionForConditionalGeneration", group: Group) -> list[str]:
    """Names of a group's parameters, as `named_parameters` has them.

    connector: all of the connector, and AnyRes's newline. gate: the connector's gate (`conv_gate`). vision: the tower,
    its embeddings and norms included. vision_upper_half: of a ViT of N blocks those with a number of N/2 or more, and
    nothing else (DenseFusion, baaivision/DenseFusion `densefusion/train/train.py`). detail: the convolutional tower.
    language_model: embeddings and head included.

    Raises:
        RequestError: the model has no such parameters.
    """
    names = [name for name, _ in model.named_parameters()]
    match group:
        case "gate":
            found = [name for name in names if _GATE.match(name)]
        case "vision_upper_half":
            blocks = {name: int(block[1]) for name in names if (block := _BLOCK.match(name))}
            depth = 1 + max(blocks.values(), default=-1)
            found = [name for name, block in blocks.items() if 2 * block >= depth]
        case _:
            found = [name for name in names if name.startswith(_ANYWHERE[group])]
    if not found:
        raise RequestError(
            f"The model has no parameters of the group {group} (setting `trainable`): its connector is "
            f"{model.config.connector}, its tower a {model.config.vision_config.model_type}, its second tower "
            f"{'missing' if model.config.detail_config is None else 'there'}."
        )
    return found


def set_trainable(model: "FusionForConditionalGeneration", section: TrainSection) -> list[TrainedGroup]:
    """Let gradients reach the groups that are trained and nothing else.

    Returns:
        The groups in the order of `trainable`; a parameter is in one of them.

    Raises:
        RequestError: the model has no parameters of one of them.
    """
    by_group = {group: names_of(model, group) for group in section.trainable}
    for inner, outer in _INSIDE.items():
        if inner in by_group and outer in by_group:
            own = set(by_group[inner])
            by_group[outer] = [name for name in by_group[outer] if name not in own]
    trained = {name for names in by_group.values() for name in names}
    sizes = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
        # A parameter that DeepSpeed has sharded is empty here and knows its size otherwise.
        sizes[name] = getattr(parameter, "ds_numel", parameter.numel())
    return [
        TrainedGroup(
            group,
            section.learning_rates.get(group, section.learning_rate),
            {name: sizes[name] for name in names},
        )
        for group, names in by_group.items()
    ]


def described(model: "FusionForConditionalGeneration", groups: list[TrainedGroup]) -> str:
    """A line for each group, and one for what is frozen: tensors, millions of parameters, learning rate."""
    sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in model.named_parameters()}
    trained = {name for group in groups for name in group.parameters}
    frozen = [size for name, size in sizes.items() if name not in trained]
    rows: list[tuple[str, int, int, str]] = [
        (group.name, len(group.parameters), group.size, f"{group.learning_rate:g}") for group in groups
    ]
    rows.append(("frozen", len(frozen), sum(frozen), "-"))
    lines = [f"{'parameters':<20}{'tensors':>8}{'millions':>12}{'rate':>10}"]
    lines += [f"{name:<20}{tensors:>8,}{size / 1e6:>12,.3f}{rate:>10}" for name, tensors, size, rate in rows]
    return "\n".join(lines)
