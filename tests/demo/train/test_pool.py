"""Pools of rendered scenes against the renderer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from demo.scene import render
from demo.split import seeds
from demo.train import pool as pools
from demo.train.pool import GRID, SIDE, ScenePool, open_pool, small_size


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, "CHUNK", 4)
        yield


def test_a_pool_holds_what_the_renderer_gives(cache: Path) -> None:
    pool = open_pool("train", 6, cache)
    assert len(pool) == 6
    assert pool.images.shape == (6, SIDE, SIDE, 3)
    for row, seed in enumerate(seeds("train", 6)):
        scene = render(seed, small_size(seed))
        truth = pool.truths[row]
        assert truth == scene.truth
        small = np.asarray(scene.image.resize((SIDE, SIDE)), np.int16)
        assert np.abs(pool.images[row] - small).mean() < 2
        assert pool.disparity[row].mean() == pytest.approx(scene.disparity.mean(), rel=0.02)
        shares = np.bincount(pool.owners[row].ravel(), minlength=len(truth.objects) + 1) / GRID**2
        exact = np.bincount(scene.owners.ravel(), minlength=len(truth.objects) + 1) / scene.owners.size
        np.testing.assert_allclose(shares, exact, atol=0.01)


def test_boxes_surround_what_objects_own(cache: Path) -> None:
    pool = open_pool("train", 6, cache)
    for row in range(len(pool)):
        boxes = pool.boxes(row) * GRID
        assert len(boxes) == len(pool.truths[row].objects)
        for i, (x1, y1, x2, y2) in enumerate(boxes, 1):
            ys, xs = np.nonzero(pool.owners[row] == i)
            assert x1 - 1 <= xs.min() and xs.max() <= x2
            assert y1 - 1 <= ys.min() and ys.max() <= y2


def test_a_smaller_pool_is_the_beginning_of_a_larger_one_that_renders_only_the_rest(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = open_pool("validation", 3, cache)
    kept = small.images.copy()
    rendered: list[int] = []

    def counted(seed: int, size: tuple[int, int]):  # type: ignore[no-untyped-def]
        rendered.append(seed)
        return render(seed, size)

    monkeypatch.setattr(pools, "render", counted)
    large = open_pool("validation", 7, cache)
    assert rendered == list(seeds("validation", 4, first=4))
    np.testing.assert_array_equal(large.images[:3], kept)
    assert large.truths[:3] == small.truths


def test_an_interrupted_chunk_is_rendered_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: ScenePool = open_pool("test", 2, cache)
    other = cache / "interrupted"

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pools.json, "dump", stopped)
        open_pool("test", 2, other)
    again = open_pool("test", 2, other)
    np.testing.assert_array_equal(again.images, whole.images)
    assert again.truths == whole.truths
