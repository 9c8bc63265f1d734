import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.isolate import bisect, find_poison
from pipeline.plan import FAILED, NOT_DONE, plan, withdraw_leftovers
from pipeline.store import Store
from schemas.errors import SetupError
from stages.base import GatherInput, ShardInput, ShardOutput
from tests.pipeline.stages_for_tests import (
    Numbers,
    NumbersSection,
    Squares,
    SquareSection,
    Total,
    store_at,
    work_on,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = store_at(tmp_path)
    work_on(store, Numbers(NumbersSection())).run("all")
    return store


def test_a_commit_holds_rows_ledger_files_and_metrics(store: Store) -> None:
    assert work_on(store, Squares(SquareSection())).run("00000") == "done"
    record = store.commit("download", "00000")
    assert record is not None
    assert (record.rows_in, record.rows_out, record.dropped) == (4, 2, {"decode": 2})
    assert record.metrics == {"squared": 2}
    assert store.table("download", "00000").column("n").to_pylist() == [0, 4]
    assert [t.column("reason").to_pylist() for t in store.ledger("download")] == [["decode", "decode"]]
    assert store.storage.read(record.object("images", "00000").key) == b"00000"
    assert store.storage.list("download/attempts") == []
    assert store.storage.list(".scratch") == []


def test_a_committed_shard_is_not_done_twice(store: Store) -> None:
    stage = Squares(SquareSection())
    work = work_on(store, stage)
    work.run("00000")
    attempt = store.commit("download", "00000")
    assert work.run("00000") == "done"
    assert stage.opened == 1
    assert store.commit("download", "00000") == attempt


def test_a_shard_that_raises_is_tried_again_and_then_failed_with_its_traceback(store: Store) -> None:
    stage = Squares(SquareSection())
    stage.fail_times = 2
    assert work_on(store, stage, retries=2).run("00000") == "done"
    assert (store.commit("download", "00000") or pytest.fail("no commit")).retries == 2
    stage.fail_times = 9
    assert work_on(store, stage, retries=1).run("00001") == "failed"
    failure = store.failure("download", "00001")
    assert failure is not None
    assert failure.error == "OSError: the disk is tired"
    assert failure.attempts == 2
    assert "process" in failure.traceback
    stage.fail_times = 0
    assert work_on(store, stage).run("00001") == "done"
    assert store.failure("download", "00001") is None


def test_a_stage_that_cannot_start_is_told_from_a_shard_that_fails(store: Store) -> None:
    class Broken(Squares):
        def open(self) -> None:
            raise SetupError("The weights are not there.")

    assert work_on(store, Broken(SquareSection()), retries=3).run("00000") == "setup"
    failure = store.failure("download", "00000")
    assert failure is not None
    assert failure.setup
    assert failure.attempts == 1


def test_a_stage_that_loses_a_row_fails_loudly(store: Store) -> None:
    class Leaky(Squares):
        def process(self, shard: ShardInput) -> ShardOutput:
            output = super().process(shard)
            return ShardOutput(output.rows, output.drops[1:])

    assert work_on(store, Leaky(SquareSection()), retries=3).run("00000") == "failed"
    assert "neither in the output nor dropped" in (store.failure("download", "00000") or pytest.fail("none")).error


def test_after_two_dead_workers_the_poison_row_is_quarantined(store: Store) -> None:
    poison = f"{2:032x}"
    journal = json.dumps({"session": "s", "unfinished": 2}).encode()
    store.storage.write("download/attempts/00000.json", journal)
    asked: list[int] = []

    def find(shard: str, uids: list[str]) -> list[str]:
        return bisect(uids, lambda part: asked.append(len(part)) is None and poison not in part)

    assert work_on(store, Squares(SquareSection()), find_poison=find).run("00000") == "done"
    record = store.commit("download", "00000")
    assert record is not None
    assert record.dropped == {"poison": 1, "decode": 2}
    assert asked == [4, 2, 2, 1, 1]


def test_processes_that_die_without_any_row_make_no_row_poison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert find_poison(str(tmp_path), "download", "00000", ["a", "b"]) == []


def test_deaths_of_an_earlier_session_do_not_count(store: Store) -> None:
    store.storage.write("download/attempts/00000.json", json.dumps({"session": "before", "unfinished": 9}).encode())

    def find(shard: str, uids: list[str]) -> list[str]:
        raise AssertionError("nothing has died in this session")

    assert work_on(store, Squares(SquareSection()), find_poison=find).run("00000") == "done"


def test_quarantined_rows_of_a_stage_that_never_drops_keep_their_place(store: Store) -> None:
    class Keeping(Squares):
        def process(self, shard: ShardInput) -> ShardOutput:
            return ShardOutput(shard.tables["ingest"])

        def quarantine(self, rows: pa.Table) -> ShardOutput:
            return ShardOutput(rows.set_column(2, rows.schema.field("n"), pa.array([-1] * rows.num_rows)))

    store.storage.write("download/attempts/00000.json", json.dumps({"session": "s", "unfinished": 2}).encode())
    work_on(store, Keeping(SquareSection()), find_poison=lambda shard, uids: [uids[1]]).run("00000")
    assert store.table("download", "00000").column("n").to_pylist() == [0, -1, 2, 3]


def test_a_plan_names_what_changed_and_what_follows_from_it(store: Store) -> None:
    stages = [Numbers(NumbersSection()), Squares(SquareSection()), Total(SquareSection())]

    def plans(stages: list) -> dict[str, tuple[int, list[str]]]:
        return {item.name: (item.rerun, item.because) for item in plan(store.storage, stages)}

    assert plans(stages) == {"ingest": (0, []), "download": (3, [NOT_DONE]), "cluster": (1, [NOT_DONE])}
    work = work_on(store, stages[1])
    for shard in store.shards("ingest"):
        work.run(shard)
    work_on(store, stages[2]).run("all")
    assert all(rerun == 0 for rerun, _ in plans(stages).values())
    stages[1] = Squares(SquareSection(add=5))
    assert plans(stages) == {"ingest": (0, []), "download": (3, ["download.add"]), "cluster": (1, ["inputs.download"])}
    stages[0] = Numbers(NumbersSection(count=11))
    changed = plans(stages)
    assert changed["ingest"] == (1, ["ingest.count"])
    assert changed["download"] == (3, ["download.add", "inputs.ingest"])
    store.withdraw("download", "00001")
    stages[:2] = [Numbers(NumbersSection()), Squares(SquareSection())]
    assert plans(stages)["download"] == (1, [NOT_DONE])
    stages[1].fail_times = 9
    work_on(store, stages[1]).run("00001")
    assert plans(stages)["download"] == (1, [FAILED])


def test_an_upstream_that_redoes_the_same_bytes_redoes_nothing_below(store: Store) -> None:
    stages = [Numbers(NumbersSection()), Squares(SquareSection())]
    work = work_on(store, stages[1])
    for shard in store.shards("ingest"):
        work.run(shard)
    store.withdraw("ingest", "all")
    work_on(store, stages[0]).run("all")
    assert [item.rerun for item in plan(store.storage, stages)] == [0, 0]


def test_a_gather_that_makes_fewer_shards_leaves_none_behind(store: Store) -> None:
    stages = [Numbers(NumbersSection()), Squares(SquareSection()), Total(SquareSection())]
    work = work_on(store, stages[1])
    for shard in store.shards("ingest"):
        work.run(shard)
    work_on(store, stages[2]).run("all")
    stages[0] = Numbers(NumbersSection(count=8))
    work_on(store, stages[0]).run("all")
    plans = plan(store.storage, stages)
    # The shards that are left are as they were, but what all of them together hold is not.
    assert [(item.name, item.rerun) for item in plans] == [("ingest", 0), ("download", 0), ("cluster", 1)]
    withdraw_leftovers(store, plans)
    assert store.committed("download") == ["00000", "00001"]
    assert store.committed("cluster") == ["all"]
    work_on(store, stages[2]).run("all")
    assert store.shards("cluster") == ["00000", "00001"]
    assert [item.rerun for item in plan(store.storage, stages)] == [0, 0, 0]


class KeepsCount(Total):
    """Fails until it has been tried twice; what it keeps says how often."""

    def process(self, inputs: GatherInput) -> Iterator[tuple[str, ShardOutput]]:
        mark = inputs.kept / "tried"
        if not mark.exists():
            mark.touch()
            raise OSError("killed")
        yield from super().process(inputs)


def test_what_a_gather_keeps_is_there_for_its_next_attempt_and_goes_with_its_commit(store: Store) -> None:
    for shard in store.shards("ingest"):
        work_on(store, Squares(SquareSection())).run(shard)
    assert work_on(store, KeepsCount(SquareSection())).run("all") == "failed"
    assert len(list(Path(store.storage.location).glob(".kept/cluster/*/tried"))) == 1
    assert work_on(store, KeepsCount(SquareSection(add=1))).run("all") == "failed"  # another fingerprint
    assert work_on(store, KeepsCount(SquareSection())).run("all") == "done"
    assert not Path(store.storage.location, ".kept", "cluster").exists()
