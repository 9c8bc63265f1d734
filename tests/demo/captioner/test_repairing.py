"""Captions put right by what the checks find of them."""

import random
from dataclasses import replace

import pytest

from benchmarks.caption_checks import EXACT
from demo.captioner.faults import Draft, plant
from demo.captioner.noise import HARDER, noisy_priors
from demo.captioner.perceived import Rows
from demo.captioner.repairing import faults, repaired
from demo.captions import Told, ToldRelation, ToldThing, told
from demo.scene import render
from demo.split import seeds
from demo.truth import SceneTruth
from fusion.checks import FindingKind
from fusion.priors import Priors

TRUTHS = [render(seed, (160, 128)).truth for seed in seeds("validation", 40, 7_000)]


def exact(truth: SceneTruth) -> Rows:
    return noisy_priors(truth, random.Random(truth.seed), EXACT)


def test_a_planted_fault_is_put_right_by_true_notes() -> None:
    """To the caption as it was, but where another is as good to the checks: things of one name may change places."""
    found, restored = 0, 0
    for truth in TRUTHS:
        own, rows = told(truth), exact(truth)
        if faults(own.text(), Priors.of(rows)):
            continue  # one or no thing: too short
        draft = plant(own, random.Random(truth.seed))
        if faults(draft.text, Priors.of(rows), draft.finish_reason):
            better = repaired(draft.told, truth, rows)
            assert faults(better.text(), Priors.of(rows)) == []
            found += 1
            restored += better == own
    assert found > 20 and restored >= 0.9 * found


def test_whatever_the_notes_say_little_is_left_to_be_found() -> None:
    before, after = 0, 0
    for truth in TRUTHS:
        for draw in range(2):
            rng = random.Random(f"{truth.seed} {draw}")
            rows = noisy_priors(truth, rng, HARDER)
            own = told(truth)
            draft = Draft(own, own.text()) if draw else plant(own, rng)
            found = faults(draft.text, Priors.of(rows), draft.finish_reason)
            left = faults(repaired(draft.told, truth, rows).text(), Priors.of(rows))
            assert len(left) <= len(found), draft.text
            before, after = before + len(found), after + len(left)
    assert before > 40 and after <= 0.05 * before


def test_a_caption_without_findings_stays_as_it_is() -> None:
    for truth in TRUTHS[:20]:
        own, rows = told(truth), exact(truth)
        assert repaired(own, truth, rows) is own or faults(own.text(), Priors.of(rows))


def box(label: str, x: float, anchor: int) -> dict[str, object]:
    return {"label": label, "score": 0.95, "x1": x - 0.05, "y1": 0.4, "x2": x + 0.05, "y2": 0.8, "anchor": anchor}


def notes(*labels: tuple[str, float], near: tuple[float, ...] = (), text: str = "") -> Rows:
    boxes = [box(label, x, i) for i, (label, x) in enumerate(labels)]
    depths = [{"expert": "closed_set", "anchor": i, "nearness": one, "band": "near"} for i, one in enumerate(near)]
    line = {"text": text, "score": 0.9, "polygon": [0.2, 0.4, 0.3, 0.4, 0.3, 0.5, 0.2, 0.5]}
    rows: Rows = {
        "closed_set": {"boxes": boxes},
        "tags": {"tags": [{"tag": label, "score": 0.9} for label, _ in labels]},
        "ocr": {"lines": [line] if text else []},
        "depth": {"objects": depths},
    }
    return {name: {**row, "error": None} for name, row in rows.items()}


BALL = ToldThing("ball", "red", "medium", "near", "left")
CAR = ToldThing("car", "blue", "medium", "far", "right")
SCENE = Told("meadow", (BALL, CAR), ToldRelation(0, 1, True))
NOWHERE = replace(TRUTHS[0], objects=())
"""The truth of a scene that holds nothing of what is told: it decides nothing."""


@pytest.mark.parametrize(
    ("said", "rows", "kind", "better"),
    [
        (SCENE, notes(("ball", 0.2)), FindingKind.UNSEEN_OBJECT, Told("meadow", (BALL,))),
        (
            SCENE,
            notes(("ball", 0.75), ("car", 0.9)),
            FindingKind.WRONG_SIDE,
            replace(SCENE, things=(replace(BALL, side="right"), CAR)),
        ),
        (
            replace(SCENE, relation=ToldRelation(0, 1, False)),
            notes(("ball", 0.2), ("car", 0.9)),
            FindingKind.WRONG_RELATION,
            SCENE,
        ),
        (
            replace(SCENE, things=(BALL, replace(CAR, depth="middle"))),
            notes(("ball", 0.2), ("car", 0.9), near=(0.3, 0.8)),
            FindingKind.WRONG_DEPTH,
            replace(SCENE, things=(BALL, replace(CAR, depth="middle")), relation=ToldRelation(1, 0, False)),
        ),
        (
            replace(SCENE, counts=(("ball", 2), ("car", 1))),
            notes(("ball", 0.2), ("car", 0.9)),
            FindingKind.WRONG_COUNT,
            replace(SCENE, counts=(("ball", 1), ("car", 1))),
        ),
    ],
)
def test_each_kind_of_finding_is_put_right_as_its_sentence_says(
    said: Told, rows: Rows, kind: FindingKind, better: Told
) -> None:
    assert [one.kind for one in faults(said.text(), Priors.of(rows))] == [kind]
    assert repaired(said, NOWHERE, rows) == better


def test_a_sign_reads_what_was_read_on_it() -> None:
    truth = next(t for t in TRUTHS if len(t.objects) > 1 and any(o.text for o in t.objects))
    own, rows = told(truth), exact(truth)
    bare = replace(own, things=tuple(replace(one, text=None) for one in own.things))
    kinds = {one.kind for one in faults(bare.text(), Priors.of(rows))}
    assert kinds == {FindingKind.TEXT_LEFT_OUT}
    assert repaired(bare, truth, rows) == own


def test_faults_are_of_many_kinds() -> None:
    kinds = set()
    for truth in TRUTHS:
        for draw in range(5):
            draft = plant(told(truth), random.Random(f"{truth.seed} {draw}"))
            kinds |= {one.kind for one in faults(draft.text, Priors.of(exact(truth)), draft.finish_reason)}
    assert kinds >= {
        FindingKind.UNSEEN_TEXT,
        FindingKind.MISQUOTED_TEXT,
        FindingKind.TEXT_LEFT_OUT,
        FindingKind.UNSEEN_OBJECT,
        FindingKind.WRONG_SIDE,
        FindingKind.WRONG_RELATION,
        FindingKind.WRONG_DEPTH,
        FindingKind.WRONG_COUNT,
        FindingKind.REPETITION,
        FindingKind.TRUNCATED,
    }
