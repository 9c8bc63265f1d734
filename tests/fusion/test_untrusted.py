"""Text from outside cannot leave its line or speak to the model's tokenizer."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.untrusted import clean

TOKENS = [
    "<image>",
    "</image>",
    "<img>",
    "<IMG_CONTEXT>",
    "<|image_pad|>",
    "<|vision_start|>",
    "<|im_start|>",
    "<|image_1|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "\uff1cimage\uff1e",
    "<start_of_turn>",
    "<s>",
    "</s>",
    "[IMG]",
    "[/INST]",
]
PIECES = st.one_of(
    st.sampled_from([*TOKENS, "<", ">", "|", "[", "]", "<ima", "ge>", "<|", "|>", "\n", "\x00", "\u202e", " "]),
    st.text(max_size=8),
)


@given(st.lists(PIECES, max_size=30).map("".join), st.integers(0, 80))
def test_nothing_dangerous_is_left(text: str, limit: int) -> None:
    line = clean(text, limit)
    assert len(line) <= limit
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in line)
    assert "\u202e" not in line
    folded = unicodedata.normalize("NFKC", line).lower()
    for token in TOKENS:
        assert unicodedata.normalize("NFKC", token).lower() not in folded
    assert not re.search(r"<\|[^<>]*\|>", folded)


@given(st.lists(PIECES, max_size=30).map("".join))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text, 200), 200) == clean(text, 200)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A <b>red</b> cat", "A red cat"),
        ("<ima<image>ge>", ""),
        ("I <3 cats", "I <3 cats"),
        ("5 < 6 and 7 > 2", "5 < 6 and 7 > 2"),
        ("price [EUR] 5", "price [EUR] 5"),
        ("one\ntwo\t three", "one two three"),
        ("नमस्ते 👨\u200d👩\u200d👧 زبان\u200cفارسی", "नमस्ते 👨\u200d👩\u200d👧 زبان\u200cفارسی"),
    ],
)
def test_ordinary_text_is_kept(text: str, shown: str) -> None:
    assert clean(text, 200) == shown
