"""Phrases are one token, boxes are cheap, signs are letters, and every text comes back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from demo.captioner.noise import HARDER
from demo.captioner.packing import WEIGHTS
from demo.captioner.rows import PROMPT, rows
from demo.captioner.tokenizer import CHAT_TEMPLATE, SPECIAL, make_tokenizer, pieces
from demo.scene import render
from demo.signs import words
from demo.split import seeds
from demo.weights import TRAINED
from fusion.priors import Priors
from fusion.prompt import Prompt

TOKENIZER = make_tokenizer()


def tokens(text: str) -> list[str]:
    return [TOKENIZER.decode([i]) for i in TOKENIZER(text, add_special_tokens=False)["input_ids"]]


@pytest.fixture(scope="module")
def written() -> list[tuple[str, str, str]]:
    """System text, user's text and caption of some rows."""
    prompt, out = Prompt(PROMPT), []
    for seed in seeds("train", 60):
        for row in rows(render(seed, (160, 128)).truth, 2, HARDER):
            messages = prompt.render(row.alt.text if row.alt else None, Priors.of(row.priors))
            out.append((messages.system, messages.user, row.caption))
    return out


def test_rows_come_back_and_are_short(written: list[tuple[str, str, str]]) -> None:
    for texts in written:
        for text in texts:
            assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text
    counts = [[len(tokens(text)) for text in texts] for texts in written]
    system, user, caption = (sum(column) / len(counts) for column in zip(*counts, strict=True))
    assert system == 1
    assert user < 90
    assert caption < 45


def test_every_phrase_is_in_use(written: list[tuple[str, str, str]]) -> None:
    used = {token for texts in written for text in texts for token in tokens(text)}
    phrases = {piece for piece in pieces() if len(piece.split()) > 1}
    rare = {"Detected objects:\n-", "Describe the image.", " There is", " object in view."}
    assert phrases - used <= rare | {
        piece for piece in phrases if piece.endswith(("hot sky.", "stars.", "sea.", "buildings."))
    }


def test_a_second_turn_is_short_and_comes_back() -> None:
    prompt, counts = Prompt(PROMPT), []
    for seed in seeds("train", 30):
        for row in rows(render(seed, (160, 128)).truth, 1, bare=0.0, repairs=1.0):
            if row.first is not None:
                again = prompt.repair([one.detail for one in row.findings])
                counts.append(len(tokens(again)))
                assert "".join(tokens(again)) == again
    assert len(counts) > 20 and sum(counts) / len(counts) < 25


def test_what_weights_were_trained_with_keeps_its_numbers() -> None:
    """The shipped embeddings have a row for every token, those of the second turn last."""
    rows_of = load_file(TRAINED / "captioner" / WEIGHTS)["language_model.model.embed_tokens.weight"].shape[0]
    vocabulary = TOKENIZER.get_vocab()
    assert len(TOKENIZER) <= rows_of
    words_before = [vocabulary[TOKENIZER.tokenize(piece)[0]] for piece in pieces() if len(piece.split()) > 1]
    assert max(words_before) < min(vocabulary[TOKENIZER.tokenize(one)[0]] for one in (' The text "', " is nearer."))


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    if not any(token in text for token in SPECIAL):
        assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("word", [*words("test")[:40], "brozen", "CLAMCLIL", "Zogman"])
def test_a_sign_is_the_same_letters_in_notes_and_caption(word: str) -> None:
    for said in (word.upper(), word.title()):
        noted = tokens(f"\n\nText in the image:\n- {said}\n\nDescribe the image.")
        quoted = tokens(f'A red sign stands in the foreground on the left, and it reads "{said}".')
        letters = list(said)
        assert noted[2 : 2 + len(letters)] == letters
        assert quoted[-1 - len(letters) : -1] == letters


def test_a_box_costs_ten_tokens() -> None:
    one, two = (
        len(tokens("\n\nDetected objects:\n" + "\n".join(["- ball: [0.123, 0.000, 1.000, 0.999]"] * n))) for n in (1, 2)
    )
    assert two - one == 10


def test_the_chat_template_marks_the_answer() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "U"}]},
    ]
    asked = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asked == "<s><|system|>S<|user|><image>U<|assistant|>"
    for answer in ("A", [{"type": "text", "text": "A"}]):
        whole = TOKENIZER.apply_chat_template(
            [*messages, {"role": "assistant", "content": answer}],
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert TOKENIZER.decode(whole["input_ids"]) == f"{asked}A</s>"
        assert whole["assistant_masks"] == [0] * (len(whole["input_ids"]) - 2) + [1, 1]
    assert TOKENIZER.chat_template == CHAT_TEMPLATE
