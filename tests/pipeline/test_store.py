from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.store import check_output
from pipeline.verify import collect_garbage
from schemas.errors import ContractError
from schemas.ledger import Drop, Reason
from stages.base import ShardOutput
from tests.pipeline.stages_for_tests import ROWS, Numbers, NumbersSection, Squares, SquareSection, store_at, work_on


def table(uids: list[str]) -> pa.Table:
    return pa.table({"uid": uids, "url": uids, "n": [0] * len(uids)}, schema=ROWS)


@given(st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=8), st.data())
def test_the_row_invariant_holds_exactly_when_every_row_ends_once(uids: list[str], data: st.DataObject) -> None:
    fates = data.draw(
        st.lists(st.sampled_from(["out", "drop", "lose", "twice"]), min_size=len(uids), max_size=len(uids))
    )
    pairs = list(zip(uids, fates, strict=True))
    out = [u for u, fate in pairs if fate in ("out", "twice")]
    drops = [Drop(u, u, Reason.DECODE) for u, fate in pairs if fate in ("drop", "twice")]
    output = {"00000": ShardOutput(table(out), drops)}
    if {"lose", "twice"} & set(fates):
        with pytest.raises(ContractError):
            check_output("s", ROWS, output, uids)
    else:
        check_output("s", ROWS, output, uids)


def test_a_row_from_nowhere_is_a_broken_contract() -> None:
    with pytest.raises(ContractError, match="1 came from nowhere"):
        check_output("s", ROWS, {"0": ShardOutput(table(["a", "b"]))}, ["a"])


def test_wrong_columns_types_and_nulls_are_broken_contracts() -> None:
    for bad in (
        pa.table({"uid": ["a"]}),
        pa.table({"uid": ["a"], "url": ["u"], "n": pa.array([1], pa.int32())}),
        pa.table({"uid": ["a"], "url": [None], "n": [1]}, schema=pa.schema([(f.name, f.type) for f in ROWS])),
    ):
        with pytest.raises(ContractError):
            check_output("s", ROWS, {"0": ShardOutput(bad)}, ["a"])


def test_the_first_commit_of_a_fingerprint_wins_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    work_on(store, Numbers(NumbersSection())).run("all")
    work_on(store, Squares(SquareSection())).run("00000")
    first = store.commit("download", "00000")
    assert first is not None
    late = first.model_copy(update={"attempt": "late"})
    assert store.publish(late).attempt == first.attempt
    other = first.model_copy(update={"attempt": "new", "fingerprint": "f"})
    assert store.publish(other).attempt == "new"
    assert (store.commit("download", "00000") or first).attempt == "new"


def test_equal_content_has_equal_digest_whichever_attempt_wrote_it(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        store = store_at(tmp_path / name)
        work_on(store, Numbers(NumbersSection())).run("all")
        work_on(store, Squares(SquareSection())).run("00001")
        digests.append(store.content("download", "00001"))
    assert digests[0] == digests[1]


def test_garbage_is_also_what_an_attempt_that_died_left_in_its_scratch(tmp_path: Path) -> None:
    storage = store_at(tmp_path).storage
    (storage.scratch("download.00000.abc") / ".half").write_bytes(b"12345")
    assert collect_garbage(storage, []) == (1, 5)
    assert not (tmp_path / ".scratch").exists()
    assert storage.scratch("download.00000.def").is_dir()
