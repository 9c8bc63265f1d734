"""What all tests share, and how they are dealt to the workers of pytest-xdist.

Each worker has one local Ray and one set of small models for its whole session.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cluster.session import connect

# Machines that share two cores are slow by fits; how long an example takes proves nothing.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

QUICK_FIRST = ("ray", "browser", "vllm", "e2e")

BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
if BESIDE_OTHERS:
    # Read when torch and NumPy are first imported, which is after this. Workers share the cores between them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile`, but for whole runs: one worker does them all, from a single finished run."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/e2e" if nodeid.startswith("tests/e2e/") else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first and whole runs last; beside others the other way round, so that all are done at the same time.

    Tests that need a GPU run only where there is one.
    """
    if on_gpu := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no GPU"))
    items.sort(
        key=lambda item: max((QUICK_FIRST.index(m) + 1 for m in QUICK_FIRST if item.get_closest_marker(m)), default=0),
        reverse=BESIDE_OTHERS,
    )


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray of four logical CPUs, started once; `cluster.session.connect` joins it."""
    with connect(num_cpus=4, num_gpus=0):
        yield


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the small random-weight checkpoints, by family, made once."""
    from demo.weights import make_weights

    return make_weights(tmp_path_factory.mktemp("weights"))
