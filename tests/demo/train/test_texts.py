"""Texts of scenes: right where they should be, wrong where they should be, and made of whole tokens."""

import random

import pytest

from demo.backgrounds import SETTINGS
from demo.shapes import CATEGORIES
from demo.train import texts
from demo.train.texts import Claim
from demo.train.tokenizer import CONTEXT, make_tokenizer, merges_for
from demo.truth import ObjectTruth, SceneTruth


def thing(category: str, colour: str, x1: int, x2: int, foot: int) -> ObjectTruth:
    box = (x1, foot - 20, x2, foot)
    return ObjectTruth(category, colour, "medium", box, box, 0.0, 5.0)


@pytest.fixture
def scene() -> SceneTruth:
    """A red ball near on the left, a blue car far on the right, a red car in the middle."""
    objects = (
        thing("ball", "red", 0, 20, 95),
        thing("car", "red", 40, 60, 75),
        thing("car", "blue", 80, 100, 60),
    )
    return SceneTruth(seed=1, setting="beach", width=100, height=100, horizon=40, objects=objects)


def test_facts_bind_colours_and_places_to_their_objects(scene: SceneTruth) -> None:
    facts = texts.facts(scene)
    for claim in (
        Claim(setting="beach"),
        Claim("ball"),
        Claim("car", "red"),
        Claim("ball", None, "left"),
        Claim("car", "blue", "right", "far"),
        Claim("car", "red", "centre", "middle"),
    ):
        assert claim in facts
    for claim in (Claim(setting="night"), Claim("ball", "blue"), Claim("car", "blue", "left"), Claim("mug")):
        assert claim not in facts


def test_captions_are_right_and_altered_ones_are_wrong(scene: SceneTruth) -> None:
    rng = random.Random(0)
    captions = [texts.caption(scene, rng) for _ in range(300)]
    wrong = [text for _ in range(300) if (text := texts.altered(scene, rng))]
    assert len(wrong) > 280
    facts = texts.facts(scene)
    assert texts.right([c.claims for c in captions], [facts]) == [[True] * len(captions)]
    assert texts.right([w.claims for w in wrong], [facts]) == [[False] * len(wrong)]
    for text in captions:
        said = set(text.text.replace(",", "").replace(".", "").replace(":", "").split())
        assert said & set(CATEGORIES) == {claim.category for claim in text.claims if claim.category}
        if any(claim.setting for claim in text.claims):
            assert "beach" in said
    assert len({c.text for c in captions}) > 200
    assert texts.caption(scene, random.Random(5)) == texts.caption(scene, random.Random(5))


def test_labels_start_with_the_plain_names_and_strangers_are_none_of_them() -> None:
    labels = [label.text for label in texts.labels()]
    assert tuple(labels[: len(CATEGORIES) + len(SETTINGS)]) == (*CATEGORIES, *SETTINGS)
    assert len(set(labels)) == len(labels)
    assert "red car" in labels
    strangers = texts.strangers()
    assert "giraffe" in strangers
    assert not set(strangers) & set(labels)


def test_words_of_the_world_are_single_tokens_and_any_text_can_be_written(scene: SceneTruth) -> None:
    tokenizer = make_tokenizer()
    for word in texts.words():
        assert len(tokenizer(word).input_ids) == 3, word
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    odd = "Straße 42: ZXQY 日本"
    assert tokenizer.decode(tokenizer(odd).input_ids, skip_special_tokens=True).replace(" ", "") == (
        odd.lower().replace(" ", "")
    )
    rng = random.Random(0)
    assert max(len(tokenizer(texts.caption(scene, rng).text).input_ids) for _ in range(100)) <= CONTEXT


def test_merges_take_the_most_frequent_pair_first_and_the_last_of_equals() -> None:
    assert merges_for(["aab", "aac"]) == [("a", "a"), ("aa", "c</w>"), ("aa", "b</w>")]
