"""What all tests share: one local Ray for the whole session."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from cluster.session import connect

# Machines that share two cores are slow by fits; how long an example takes proves nothing.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

SLOW_LAST = ("ray", "browser", "vllm", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first, whole runs last; those that need a GPU only where there is one."""
    if on_gpu := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no GPU"))
    items.sort(
        key=lambda item: max((SLOW_LAST.index(m) + 1 for m in SLOW_LAST if item.get_closest_marker(m)), default=0)
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
