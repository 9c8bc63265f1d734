"""What the runner leaves behind when a segment stops early."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import runner
from pipeline.work import Work
from schemas.errors import RequestError, SetupError
from tests.pipeline.stages_for_tests import Numbers, NumbersSection, Squares, SquareSection, Total, store_at, work_on


class Broken(Squares):
    def open(self) -> None:
        raise SetupError("The weights are not there.")


def test_the_stream_is_closed_before_a_stage_that_cannot_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(tmp_path)
    stages = [Numbers(NumbersSection()), Broken(SquareSection())]
    work_on(store, stages[0]).run("all")
    work: Work = work_on(store, stages[1])
    seen: list[str] = []

    def stream(*_: Any) -> Iterator[str]:
        try:
            for shard in ("00000", "00001"):
                seen.append(shard)
                yield work.run(shard)
        finally:
            seen.append("closed")

    monkeypatch.setattr(runner, "_stream", stream)
    quiet = SimpleNamespace(segment_started=lambda *_: None, segment_ended=lambda: seen.append("ended"))
    lease = SimpleNamespace(lost=SimpleNamespace(is_set=lambda: False))
    with pytest.raises(SetupError, match=r"^download cannot go on\. The weights are not there\.$"):
        runner._run_segment(
            store.storage,
            str(tmp_path),
            None,
            stages,
            stages[1:],
            runner.Result(),
            quiet,
            lease,  # type: ignore[arg-type]
        )
    assert seen == ["00000", "closed", "ended"]


def test_only_the_stages_up_to_the_one_named_are_done() -> None:
    stages = [Numbers(NumbersSection()), Squares(SquareSection()), Total(SquareSection())]
    assert runner._up_to(stages, None) == stages
    assert runner._up_to(stages, "download") == stages[:2]
    with pytest.raises(RequestError, match=r"no stage `dedup`.*ingest, download, cluster"):
        runner._up_to(stages, "dedup")
