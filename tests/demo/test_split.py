"""Splits share neither scenes nor the words on their signs."""

import random

import pytest

from demo.scene import render
from demo.signs import random_word, words
from demo.split import SPLITS, seeds, split_of, split_of_word


def test_every_seed_of_a_split_is_in_it() -> None:
    for split in SPLITS:
        assert {split_of(seed) for seed in (*seeds(split, 3), *seeds(split, 3, first=999_999_997))} == {split}
    with pytest.raises(ValueError, match="3000000000"):
        split_of(3_000_000_000)


def test_signs_bear_only_the_words_of_their_split() -> None:
    assert sorted(words()) == sorted(word for split in SPLITS for word in words(split))
    for split in SPLITS:
        assert len(words(split)) > 20
        rng = random.Random(split)
        drawn = {random_word(rng, split) for _ in range(300)}
        assert {split_of_word(word) for word in drawn} == {split}
        assert not drawn <= set(words())
        scenes = [render(seed, (256, 205)).truth for seed in seeds(split, 25)]
        letters = [w for t in scenes for o in t.objects if o.text for w in o.text.split() if not w.isdigit()]
        assert letters and {split_of_word(word) for word in letters} == {split}
