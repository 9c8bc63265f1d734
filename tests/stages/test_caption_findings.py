"""What the checks found, summed over shards: by kind, before and after repairs, and of what the policy let through."""

from collections import Counter

from fusion.checks import Finding, FindingKind
from fusion.engine import Answer
from schemas.summary import RunSummary, StageSummary
from stages.caption_findings import findings_metrics, findings_table
from stages.caption_talk import Judged, Repair

LOOP, SIDE, TEXT = FindingKind.REPETITION, FindingKind.WRONG_SIDE, FindingKind.TEXT_LEFT_OUT


def judged(*kinds: FindingKind, first: Judged | None = None) -> Judged:
    repair = Repair(first, "again", ()) if first is not None else None
    return Judged(Answer("a", "stop", 1, 0, 1), "a", [Finding(kind, "") for kind in kinds], repair, first is not None)


SHARDS = [
    [judged(), judged(TEXT, TEXT), judged(first=judged(SIDE, TEXT))],
    [judged(LOOP), judged(SIDE, first=judged(SIDE, LOOP))],
]


def run(*shards: dict[str, float]) -> RunSummary:
    total: Counter[str] = Counter()
    for shard in shards:
        total.update(shard)  # type: ignore[arg-type]
    metrics = {"repairs_asked": 2.0, **{name: float(count) for name, count in total.items()}}
    return RunSummary("r", (StageSummary("caption", 5, 4, metrics=metrics),))


def test_shards_add_up_by_kind_and_step() -> None:
    table = findings_table(run(findings_metrics(SHARDS[0], SHARDS[0]), findings_metrics(SHARDS[1], SHARDS[1][1:])))
    assert table is not None
    assert (table.checked, table.kept, table.asked_again) == (5, 4, 2)
    assert {one.kind: one.counts for one in table.kinds} == {TEXT: (2, 1, 1), SIDE: (2, 1, 1), LOOP: (2, 1, 0)}
    assert table.any_kind.counts == (4, 3, 2)
    assert (table.first, table.last) == ((0 + 2 + 2 + 1 + 2) / 5, (0 + 2 + 0 + 1 + 1) / 5)


def test_the_most_frequent_comes_first_and_what_was_not_found_is_left_out() -> None:
    captions = [judged(SIDE), judged(LOOP), judged(SIDE)]
    table = findings_table(run(findings_metrics(captions, captions)))
    assert table is not None and [one.kind for one in table.kinds] == [SIDE, LOOP]


def test_nothing_is_told_of_a_run_that_checked_nothing() -> None:
    assert findings_table(RunSummary("r", ())) is None
    assert findings_table(run(findings_metrics([], []))) is None
    clean = findings_table(run(findings_metrics([judged()], [judged()])))
    assert clean is not None and clean.kinds == () and clean.any_kind.counts == (0, 0, 0)
