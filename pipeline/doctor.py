"""`doctor`: is this machine, or this cluster, able to run it? Each check says what it found and what to do."""

import importlib
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from schemas.errors import RequestError

PACKAGES = ("ray", "torch", "torchvision", "transformers", "open_clip", "faiss", "img2dataset", "rapidocr", "vllm")
MIN_OPEN_FILES = 4096
MIN_DISK_GB = 5
MIN_MEMORY_GB = 8


@dataclass(frozen=True)
class Finding:
    """One check."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def examine(config: str | None, overrides: list[str]) -> list[Finding]:
    """All checks; with a configuration also what its stages need before they start."""
    findings = [_python(), *(_package(name) for name in PACKAGES), _torchvision(), _gpus()]
    findings += [_memory(), _disk(), _open_files(), _ray()]
    if config is not None:
        findings += _configuration(config, overrides)
    return findings


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info < (3, 13)
    return Finding("python", ok, platform.python_version(), "Use Python 3.11 or 3.12.")


def _package(name: str) -> Finding:
    spec = importlib.util.find_spec(name)
    extra = "gpu (or cpu)" if name == "vllm" else "cpu"
    return Finding(name, spec is not None, "installed" if spec else "missing", f"pip install 'densefusion[{extra}]'")


def _torchvision() -> Finding:
    def look() -> str:
        import torch
        import torchvision
        from torchvision.extension import _has_ops

        compiled = "with" if _has_ops() else "without"
        return f"{torchvision.__version__} beside torch {torch.__version__}, {compiled} compiled operators"

    return _try("torchvision imports", look, "Install the torchvision that was built for this torch.")


def _gpus() -> Finding:
    def look() -> str:
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(names) or "none; stages with resources.gpus = 0 run on the CPU"

    return _try("gpus", look, "The driver and the torch build do not fit together.")


def _memory() -> Finding:
    total = psutil.virtual_memory().total / 1e9
    return Finding("memory", total >= MIN_MEMORY_GB, f"{total:.0f} GB", f"The demo needs {MIN_MEMORY_GB} GB.")


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    return Finding("disk", free >= MIN_DISK_GB, f"{free:.0f} GB free here", "Give a run directory on a larger disk.")


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding("open files", soft >= MIN_OPEN_FILES or hard >= MIN_OPEN_FILES, f"{soft}", "ulimit -n 65536")


def _ray() -> Finding:
    def look() -> str:
        import ray

        from cluster.session import connect

        with connect(os.environ.get("RAY_ADDRESS")):
            total = ray.cluster_resources()
            return f"started, {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"

    return _try("ray", look, "Look at the log that `ray start` names; a small /dev/shm is the usual reason.")


def _configuration(source: str, overrides: list[str]) -> Iterator[Finding]:
    from pipeline.config import load_config
    from pipeline.graph import build_stages

    config = load_config(source, overrides, "runs/doctor")
    if config.world is not None:
        yield Finding("scene world", True, "metadata and weights are made when the run starts")
        return
    for stage in build_stages(config):
        try:
            stage.check()
        except RequestError as error:
            yield Finding(stage.name, False, str(error), "")
        else:
            yield Finding(stage.name, True, "nothing is missing")


def _try(name: str, look: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding(name, True, look(), advice)
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}", advice)
