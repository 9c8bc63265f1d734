"""Scenes for the recipes, rendered once for all of them."""

from collections.abc import Callable

import pytest

from demo.split import Split
from demo.train import pool
from demo.train.pool import ScenePool, open_pool

ScenesOf = Callable[[Split, int], ScenePool]


@pytest.fixture(scope="session")
def scenes_of(tmp_path_factory: pytest.TempPathFactory) -> ScenesOf:
    """`scenes_of(split, count)`: a pool in small chunks, so that no more is rendered than is looked at."""
    cache = tmp_path_factory.mktemp("scenes")

    def opened(split: Split, count: int) -> ScenePool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool, "CHUNK", 4)
            return open_pool(split, count, cache)

    return opened
