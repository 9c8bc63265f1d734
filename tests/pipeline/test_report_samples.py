"""Which samples the report shows."""

import itertools
from pathlib import Path

import pytest

from pipeline.config import load_run
from pipeline.report.build import ReportSample
from pipeline.report.samples import pick_faulty, pick_samples
from pipeline.store import CommittedImages, Store
from stages.priors import DecidedPriors
from tests.fakes import captioned_run
from tests.fakes.byte_tokenizer import byte_tokenizer
from tests.fakes.recording_engine import recording_engine

SETTINGS = ["caption.max_tokens=100", "caption.retries=0", "caption.checks.min_words=1", "caption.require_priors=false"]
SHARDS = ["00000", "00001"]


class Report:
    def __init__(self, folder: Path, store: Store) -> None:
        self.store, self.images = store, CommittedImages(store)
        self.priors = DecidedPriors(load_run(str(folder)).perceive)

    def faulty(self, count: int, shown: set[str] | None = None) -> list[ReportSample]:
        return pick_faulty(self.store, self.images, self.priors, SHARDS, count, shown or set())

    def samples(self, count: int) -> list[ReportSample]:
        return pick_samples(self.store, self.images, self.priors, SHARDS, count)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """All captions leave text out; one breaks off, one speaks of itself."""
    folder = tmp_path_factory.mktemp("report")
    byte_tokenizer(folder / "model")
    said = {3: "A street. A person stands in a wide", 7: "As an AI, I cannot see it."}
    with recording_engine(100_000, lambda text: len(text.encode())) as engine:
        number = itertools.count()
        engine.answer = lambda body: said.get(next(number), "A street.") if body["max_tokens"] > 1 else "A"
        given = {"model": str(folder / "model"), "base_url": engine.base_url, "deterministic": False}
        settings = [*SETTINGS, "caption.concurrency=1"]
        store = captioned_run.perceived_run(folder / "run", given | {"max_model_len": 100_000}, settings)
        captioned_run.caption(store, folder / "run", SHARDS)
    return Report(folder / "run", store)


def test_every_kind_of_finding_has_its_turn(report: Report) -> None:
    everything = report.faulty(100)
    kinds = {finding["kind"] for sample in everything for finding in sample.findings}
    assert {"text_left_out", "truncated", "refusal"} <= kinds
    few = report.faulty(len(kinds))
    assert {finding["kind"] for sample in few for finding in sample.findings} == kinds
    assert len(few) <= len(kinds) < len(everything)


def test_none_is_shown_twice_and_none_without_findings(report: Report) -> None:
    shown = {sample.uid for sample in report.samples(4)}
    assert len(shown) == 4
    faulty = report.faulty(100, shown)
    uids = [sample.uid for sample in faulty]
    assert len(set(uids)) == len(uids) and not shown & set(uids)
    assert all(sample.findings and sample.image and sample.priors for sample in faulty)
    assert len(report.faulty(100)) > len(faulty)


def test_the_same_ones_each_time_and_as_many_as_are_asked_for(report: Report) -> None:
    assert report.faulty(3) == report.faulty(3)
    assert [len(report.faulty(count)) for count in (0, 1, 3)] == [0, 1, 3]
    assert pick_faulty(report.store, report.images, report.priors, [], 5) == []
