"""What all tests share: one local Ray for the whole session."""

from collections.abc import Iterator

import pytest

from cluster.session import connect


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray of four logical CPUs, started once; `cluster.session.connect` joins it."""
    with connect(num_cpus=4, num_gpus=0):
        yield
