"""The noise model errs as it says, and every prior that it makes is one that the prompt takes."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.captioner.measure import noise_figures
from demo.captioner.noise import HARDER, MEASURED, NoiseModel, noisy_priors
from demo.captioner.rows import PROMPT, text_given
from demo.scene import render
from demo.split import seeds
from demo.truth import SceneTruth
from fusion.priors import Priors
from fusion.prompt import Prompt
from schemas.tables import BOX, TAG, TEXT_LINE

EXPERTS = {
    "closed_set: missed, free": (0.005, 0.02),
    "closed_set: missed, partly hidden": (0.047, 0.05),
    "closed_set: edge error, 50 %": (0.009, 0.003),
    "closed_set: second boxes, a picture": (0.070, 0.04),
    "open_set: missed, free": (0.096, 0.04),
    "open_set: edge error, 50 %": (0.031, 0.006),
    "open_set: boxes under a present name, a picture": (0.313, 0.09),
    "open_set: loose boxes, a picture": (0.290, 0.09),
    "tags: missed": (0.016, 0.01),
    "signs: clean, exact": (1.0, 0.03),
    "signs: blurred, exact": (0.382, 0.2),
    "lines where no sign is, a picture": (0.123, 0.05),
    "depth: pairs in the wrong order": (0.051, 0.03),
}
"""What `python -m demo.captioner noise` said of the experts that ship, and how far the model may be from it here."""


@pytest.fixture(scope="module")
def truths() -> list[SceneTruth]:
    return [render(seed, (160, 128)).truth for seed in seeds("validation", 150)]


def test_the_model_errs_as_the_experts_do(truths: list[SceneTruth]) -> None:
    seen = [(truth, noisy_priors(truth, random.Random(f"{truth.seed} {i}"))) for truth in truths for i in range(2)]
    figures = noise_figures(seen)
    assert {name: figures[name] for name in EXPERTS} == {
        name: pytest.approx(value, abs=margin) for name, (value, margin) in EXPERTS.items()
    }


def test_harder_shows_more_of_what_is_not_there(truths: list[SceneTruth]) -> None:
    def absent(noise: NoiseModel) -> int:
        count = 0
        for truth in truths:
            there = {item.category for item in truth.objects}
            boxes = noisy_priors(truth, random.Random(truth.seed), noise)["closed_set"]["boxes"]
            count += sum(box["label"] not in there for box in boxes)
        return count

    assert absent(HARDER) > absent(MEASURED) + 8


def test_an_empty_scene_has_priors(truths: list[SceneTruth]) -> None:
    empty = replace(truths[0], objects=())
    for seed in range(40):
        assert noisy_priors(empty, random.Random(seed), HARDER)["closed_set"]["boxes"] == []


@given(st.integers(0, 10**6), st.sampled_from([MEASURED, HARDER]))
def test_every_prior_can_be_shown(truths: list[SceneTruth], seed: int, noise: NoiseModel) -> None:
    truth = truths[seed % len(truths)]
    rows = noisy_priors(truth, random.Random(seed), noise)
    for expert in ("closed_set", "open_set"):
        for box in rows[expert]["boxes"]:
            assert 0 <= box["x1"] <= box["x2"] <= 1 and 0 <= box["y1"] <= box["y2"] <= 1 and 0 < box["score"] < 1
            assert set(box) == {field.name for field in BOX}
    assert all(set(line) == {field.name for field in TEXT_LINE} for line in rows["ocr"]["lines"])
    assert all(set(tag) == {field.name for field in TAG} for tag in rows["tags"]["tags"])
    near = [one["nearness"] for one in rows["depth"]["objects"]]
    assert near == sorted(near, reverse=True)
    assert "Describe the image." in Prompt(PROMPT).render(None, Priors.of(rows)).user


def test_the_same_draw_is_the_same(truths: list[SceneTruth]) -> None:
    first, second = (noisy_priors(truths[0], random.Random(5), HARDER) for _ in range(2))
    assert first == second != noisy_priors(truths[0], random.Random(6), HARDER)


@pytest.mark.parametrize(
    ("lines", "given"),
    [
        (["OAK", "BAKERY"], True),
        (["OAK BAKERY"], True),
        (["X", "OAK", "BAKERY", "7"], True),
        (["OAK"], False),
        (["BAKERY", "OAK"], False),
        (["Oak", "Bakery"], False),
        ([], False),
    ],
)
def test_text_is_given_where_its_letters_stand_in_a_row(lines: list[str], given: bool) -> None:
    assert text_given("OAK BAKERY", lines) is given
