"""Experts over the small checkpoints."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experts.base import Expert
from experts.registry import EXPERTS
from stages.perceive import PerceiveSection

FAMILIES = {"tags": "clip", "open_set": "owlv2", "closed_set": "detector", "depth": "depth", "florence": "florence"}
QUICK: dict[str, dict[str, Any]] = {"florence": {"max_new_tokens": 96, "beams": 1}, "ocr": {"side": 320}}


@pytest.fixture(scope="session")
def opened(small_weights: dict[str, Path]) -> Iterator[Callable[..., Expert]]:
    """`opened(name, **settings)`: an expert with its model loaded; closed when the session ends."""
    experts: list[Expert] = []

    def build(name: str, **settings: Any) -> Expert:
        needs = {need: model(need) for need in EXPERTS[name].needs}
        own = {name: model(name) | QUICK.get(name, {}) | settings}
        off = dict.fromkeys(EXPERTS) | needs | own
        section = PerceiveSection.model_validate(off).experts()[name]
        expert = EXPERTS[name](section)
        expert.open("cpu")
        experts.append(expert)
        return expert

    def model(name: str) -> dict[str, str]:
        return {"model": str(small_weights[FAMILIES[name]])} if name in FAMILIES else {}

    yield build
    for expert in experts:
        expert.close()
