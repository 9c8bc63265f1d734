"""Lets a CUDA-built torchvision be imported beside a CPU-only torch, in every process of an environment.

Package indexes serve torchvision, torchaudio and torchcodec built for CUDA by default. Beside a CPU-only torch their
libraries do not load: `import torchvision` fails because the operators that its Python code refers to were never
declared, and transformers, which imports torchaudio and torchcodec wherever they are installed, fails with them.

`install` runs at the start of every interpreter, from `densefusion_torchvision.pth`, which the wheel puts into
site-packages; that reaches processes started by others too (vLLM's spawned engine, Ray's workers). It costs nothing
until torch is looked for, and does nothing where the builds match.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader

# Type checkers know the name; importing typing itself would cost every interpreter some milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

HIDDEN = ("torchaudio", "torchcodec")

# The operators that torchvision/_meta_registrations.py refers to by name whether or not its library was loaded.
OPERATORS = ("nms", "qnms")

# A declared operator lives as long as its Library object.
_declared: list[object] = []


def install() -> None:
    """Put the import hook in place, once; to be called before torch is imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def is_mismatched(package: str) -> bool:
    """Whether `package` was built for CUDA and the torch beside it was not.

    Read off the `version.py` of both (torch's `cuda` field, the package's `+cu…` label), without importing either.
    """
    import re

    cpu_torch = re.search(r"^cuda\b.*=\s*None", _version_file("torch"), re.MULTILINE)
    cuda_label = re.search(r"^__version__\s*=\s*['\"][^'\"]+\+cu\d", _version_file(package), re.MULTILINE)
    return bool(cpu_torch and cuda_label)


def _version_file(package: str) -> str:
    from pathlib import Path

    spec = PathFinder.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        file = Path(folder) / "version.py"
        if file.is_file():
            return file.read_text()
    return ""


class _Finder:
    """Passes every import on to the finders behind it, except that of a mismatched torchvision."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torch":
            # The other packages cannot be used without torch, so whoever asks for them has come by here before.
            _hide_mismatched()
        elif name == "torchvision" and is_mismatched(name):
            spec = PathFinder.find_spec(name, path, target)
            if spec is not None and isinstance(spec.loader, SourceFileLoader):
                spec.loader = _OperatorsFirst(spec.loader.name, spec.loader.path)
                return spec
        return None


class _OperatorsFirst(SourceFileLoader):
    """Declares torchvision's operators, then runs its `__init__`.

    They have no kernels: calling one says that torchvision's library could not be loaded.
    """

    def exec_module(self, module: ModuleType) -> None:
        if not _declared:
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)
        super().exec_module(module)


def _hide_mismatched() -> None:
    """Make the packages that would fail on import look as if they were not installed."""
    for package in HIDDEN:
        if package not in sys.modules and is_mismatched(package):
            sys.modules[package] = None  # type: ignore[assignment]
