"""Experts over the small checkpoints."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experts.base import Expert
from experts.registry import EXPERTS

FAMILIES = {"tags": "clip", "open_set": "owlv2", "closed_set": "detector", "depth": "depth", "florence": "florence"}
QUICK: dict[str, dict[str, Any]] = {"florence": {"max_new_tokens": 96, "beams": 1}, "ocr": {"side": 320}}


@pytest.fixture(scope="session")
def opened(small_weights: dict[str, Path]) -> Iterator[Callable[..., Expert]]:
    """`opened(name, **settings)`: an expert with its model loaded; closed when the session ends."""
    experts: list[Expert] = []

    def build(name: str, **settings: Any) -> Expert:
        model = {"model": str(small_weights[FAMILIES[name]])} if name in FAMILIES else {}
        kind = EXPERTS[name]
        expert = kind(kind.section.model_validate(model | QUICK.get(name, {}) | settings))
        expert.open("cpu")
        experts.append(expert)
        return expert

    yield build
    for expert in experts:
        expert.close()
