import os
from pathlib import Path

import pytest

from pipeline.gather import GatherReader, done_here
from pipeline.spread import RaySpread
from pipeline.store import Store
from schemas.section import Resources, Workers
from tests.pipeline.pieces import always_dies, dies_once, refuses, whose
from tests.pipeline.stages_for_tests import store_at

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def reader(store: Store, workers: int) -> GatherReader:
    spread = RaySpread(store.storage.location, Resources(cpus=1, workers=Workers(min=1, max=workers)))
    return GatherReader(store, store.storage.scratch("t"), store.storage.kept("cluster", "f"), spread)


def test_results_keep_the_order_of_their_items(tmp_path: Path) -> None:
    inputs = reader(store_at(tmp_path), 3)
    results = list(inputs.spread(whose, range(40)))
    assert [item for item, _ in results] == list(range(40))
    assert len(list(inputs.kept.glob("*.done"))) == 40


def test_one_worker_does_it_in_the_gathers_own_process(tmp_path: Path) -> None:
    assert {pid for _, pid in reader(store_at(tmp_path), 1).spread(whose, [1, 2])} == {os.getpid()}


def test_nothing_waits_for_workers_that_find_no_place(tmp_path: Path) -> None:
    inputs = reader(store_at(tmp_path), 2)
    spread = RaySpread(str(tmp_path), Resources(cpus=1000, workers=Workers(min=1, max=2)), patience=0.5)
    assert {pid for _, pid in spread(inputs, whose, range(5))} == {os.getpid()}


def test_an_item_whose_worker_dies_is_done_by_another(tmp_path: Path) -> None:
    inputs = reader(store_at(tmp_path), 3)
    # One process would die itself: let the workers come up first.
    spread = RaySpread(str(tmp_path), Resources(cpus=0.5, workers=Workers(min=1, max=3)), patience=60)
    assert list(spread(inputs, dies_once, range(8))) == list(range(8))
    assert (inputs.kept / "died").exists()


def test_an_item_that_kills_every_worker_is_an_error(tmp_path: Path) -> None:
    import ray

    inputs = reader(store_at(tmp_path), 2)
    (inputs.kept / "gather").write_text(str(os.getpid()))
    spread = RaySpread(str(tmp_path), Resources(cpus=0.5, workers=Workers(min=1, max=2)), patience=60)
    with pytest.raises(ray.exceptions.RayActorError):
        list(spread(inputs, always_dies, range(2)))


def test_what_the_work_raises_comes_back_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="item 0 is wrong"):
        list(reader(store_at(tmp_path), 3).spread(refuses, [0, 1]))


def test_done_here_is_lazy(tmp_path: Path) -> None:
    results = done_here(reader(store_at(tmp_path), 1), refuses, [0])
    with pytest.raises(ValueError, match="item 0"):
        next(results)
