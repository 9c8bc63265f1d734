"""A head of linear layers, put together from nothing but its weights."""

import itertools
import re
from dataclasses import dataclass
from typing import Any

_LAYER = re.compile(r"(?:(?P<module>.+)\.)?(?P<kind>weight|bias)")
_PLACE = re.compile(r"(?:(?P<parent>.+)\.)?(?P<number>\d+)")
_ROOM_FOR_ONE = 2
_ROOM_FOR_TWO = 3


@dataclass
class LinearHead:
    """Linear layers one after another, float32, in the order of their numbers; dropouts do nothing here.

    Attributes:
        layers: torch.nn.Sequential.
        inputs: length of the vectors that it takes.
        outputs: length of those that it gives.
    """

    layers: Any
    inputs: int
    outputs: int


def linear_head(weights: dict[str, Any], activation: str | None = None) -> LinearHead:
    """The head that a state dict is of: `layers.0.weight`, `layers.0.bias`, `layers.2.weight`, ..., or one bare layer.

    A torch.nn.Sequential numbers its modules, so the distance of two linear layers tells how many modules stood between
    them, but not which: one may be an activation or a dropout.

    Args:
        weights: tensors by name.
        activation: `relu` between layers that are two or more apart, `none`; None is relu where some are three or more
            apart (room for an activation and a dropout), else none.

    Raises:
        ValueError: there is something else in it than linear layers whose sizes fit, or two stacks.
    """
    import torch

    layers = _layers(weights)
    numbers = sorted(layers)
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    relu = activation == "relu" or (activation is None and max(steps, default=0) >= _ROOM_FOR_TWO)
    modules: list[Any] = []
    width = None
    for number, step in zip(numbers, [*steps, 0], strict=True):
        weight, bias = layers[number].get("weight"), layers[number].get("bias")
        if weight is None or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            raise ValueError(f"layer {number} is not linear")
        if width is not None and weight.shape[1] != width:
            raise ValueError(f"layer {number} takes {weight.shape[1]} numbers, and the one before it gives {width}")
        width = weight.shape[0]
        linear = torch.nn.Linear(weight.shape[1], width, bias=bias is not None)
        linear.load_state_dict(layers[number])
        modules.append(linear)
        if relu and step >= _ROOM_FOR_ONE:
            modules.append(torch.nn.ReLU())
    stack = torch.nn.Sequential(*modules).float().eval().requires_grad_(False)
    return LinearHead(stack, stack[0].in_features, int(width or 0))


def _layers(weights: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Tensors by the layer's number and by `weight` or `bias`."""
    layers: dict[int, dict[str, Any]] = {}
    parents = set()
    for name, tensor in weights.items():
        found = _LAYER.fullmatch(name)
        if found is None:
            raise ValueError(f"{name} is no weight or bias of a linear layer")
        place = _PLACE.fullmatch(found["module"] or "")
        parents.add(place["parent"] if place else (found["module"] or "", "alone"))
        layers.setdefault(int(place["number"]) if place else 0, {})[found["kind"]] = tensor
    if len(parents) != 1:
        raise ValueError(f"it holds {len(parents)} stacks of layers where there must be one")
    return layers
