"""The repair pass on few scenes: what has findings, and only that, is asked again, and no caption gets worse."""

import json

import pytest

from benchmarks.caption.repair import MEASURES, PASSES, main

pytestmark = pytest.mark.vllm


def test_the_pass_asks_about_faulty_captions_and_leaves_no_more_findings(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "--scenes", "24", "--first", "16"])
    answer = json.loads(capsys.readouterr().out)
    without, repaired, best = (answer["passes"][name] for name in PASSES)
    assert without["asked_again"] == without["repaired"] == 0
    assert repaired["asked_again"] == without["faulty"] > 0
    assert repaired["faulty"] >= repaired["asked_again"] - repaired["repaired"]
    assert answer["ratios"]["one answer"] == pytest.approx(repaired["findings"] / without["findings"])
    assert best["findings"] <= repaired["findings"] <= without["findings"]
    assert all(ratio <= 1 for ratio in answer["ratios"].values())
    assert repaired["faulty"] <= without["faulty"]
    for found in (without, repaired, best):
        assert sum(found["kinds"].values()) == pytest.approx(24 * found["findings"])
        assert found["figures"].keys() <= MEASURES.keys() and found["figures"]["object_f1"]["value"] > 0.8
