"""Experts over the small checkpoints."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from experts.base import Expert
from experts.registry import EXPERTS
from schemas.section import StageSection

FAMILIES = {"tags": "clip", "open_set": "owlv2", "closed_set": "detector", "depth": "depth", "florence": "florence"}
QUICK: dict[str, dict[str, Any]] = {"florence": {"max_new_tokens": 96, "beams": 1}, "ocr": {"side": 320}}


def _files(section: StageSection) -> list[tuple[str, int, int]]:
    """(path, size in bytes, time of the last change) of whatever files and folders a section names."""
    named = [Path(value) for value in section.model_dump().values() if isinstance(value, str) and "/" in value]
    files = [file for path in named for file in (path, *path.rglob("*")) if file.exists()]
    return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@pytest.fixture(scope="session")
def opened(small_weights: dict[str, Path]) -> Iterator[Callable[..., Expert]]:
    """`opened(name, **settings)`: an expert with its model loaded, one for all that give the same settings and files.

    `opened(name, anew=True, **settings)` is one that nobody else gets, for tests that change its model.
    """
    experts: list[Expert] = []
    shared: dict[str, Expert] = {}

    def build(name: str, *, anew: bool = False, **settings: Any) -> Expert:
        model = {"model": str(small_weights[FAMILIES[name]])} if name in FAMILIES else {}
        kind = EXPERTS[name]
        section = kind.section.model_validate(model | QUICK.get(name, {}) | settings)
        key = f"{name} {section.model_dump_json()} {_files(section)}"
        if anew or key not in shared:
            expert = kind(section)
            expert.open("cpu")
            experts.append(expert)
            if anew:
                return expert
            shared[key] = expert
        return shared[key]

    yield build
    for expert in experts:
        expert.close()
