"""Right, vague and wrong: a page's text is what it says it is."""

import re
from collections import Counter

import pytest

from demo.alt_text import KINDS, alt_text
from demo.palette import OBJECT_COLOURS
from demo.scene import render
from demo.shapes import SHAPES, SIGN
from demo.truth import SceneTruth


@pytest.fixture(scope="module")
def truths() -> list[SceneTruth]:
    return [render(seed, (256, 205)).truth for seed in range(150)]


def _named(text: str) -> set[tuple[str, str]]:
    return set(re.findall(rf"({'|'.join(OBJECT_COLOURS)}) ({'|'.join([*SHAPES, SIGN])})", text))


def test_a_right_text_names_only_what_is_there_and_a_wrong_one_only_what_is_not(truths: list[SceneTruth]) -> None:
    for truth in truths:
        right, wrong, vague = (alt_text(truth, kind) for kind in ("right", "wrong", "vague"))
        assert _named(right.text) == set(right.claims) and right.claims
        assert set(right.claims) <= {(o.colour, o.category) for o in truth.objects}
        assert _named(wrong.text) == set(wrong.claims) and wrong.claims
        assert {c for _, c in wrong.claims}.isdisjoint(o.category for o in truth.objects)
        assert truth.setting not in wrong.text
        assert not _named(vague.text) and not vague.claims


def test_kinds_are_drawn_as_often_as_stated_and_the_same_each_time(truths: list[SceneTruth]) -> None:
    kinds = Counter(alt_text(truth).kind for truth in truths)
    assert kinds == Counter(alt_text(truth).kind for truth in truths)
    for kind, share in KINDS.items():
        assert abs(kinds[kind] / len(truths) - share) < 0.15
