"""The checks find planted faults and leave right captions alone."""

import json

from benchmarks import caption_checks
from fusion.checks import FindingKind

SCENES = 40
UNREADABLE = {"text left out"}
"""What noisy priors cannot show: the reader did not read it."""


def test_faults_are_found_and_right_captions_are_not() -> None:
    answer = caption_checks.measure(SCENES)
    assert set(answer["recall"]) == {fault.words for fault in caption_checks.FAULTS}
    for fault, share in answer["recall"].items():
        assert share["true"] >= 0.9, fault
        assert share["noisy"] >= (0.7 if fault in UNREADABLE else 0.8), fault
    for kind, share in answer["false_alarms"].items():
        assert share["true"] == 0, kind
        assert share["noisy"] <= (0.2 if kind == FindingKind.UNSEEN_TEXT else 0.05), kind


def test_the_command_prints_json_and_tables(capsys) -> None:
    caption_checks.main(["--json", "--scenes", "2", "--split", "validation"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["setting"]["scenes"] == 2
    assert set(answer["false_alarms"]) == {str(kind) for kind in FindingKind}
    caption_checks.main(["--scenes", "2"])
    assert "False alarms" in capsys.readouterr().out
