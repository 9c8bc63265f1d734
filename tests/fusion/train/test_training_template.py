from pathlib import Path

import pytest

from benchmarks.fusion.tiny import tiny_tokenizer
from fusion.train.chat_template import ChatTemplate, names
from fusion.train.sources.base import BadRowError
from schemas.errors import RequestError

PICTURE, ASK = {"type": "image"}, {"type": "text", "text": "What?"}
TURNS = [
    {"role": "user", "content": [PICTURE, ASK]},
    {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
    {"role": "user", "content": "More?"},
    {"role": "assistant", "content": "No."},
]
LLAVA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@pytest.mark.parametrize(
    ("name", "text", "answers"),
    [
        ("plain", "<s><image>A dog.\nNo.\n", ["A dog.\n", "No.\n"]),
        (
            "vicuna_v1",
            f"<s>{LLAVA_SYSTEM} USER: <image>\nWhat? ASSISTANT: A dog.</s>USER: More? ASSISTANT: No.</s>",
            [" A dog.</s>", " No.</s>"],
        ),
        (
            "llama_3",
            f"<s><|start_header_id|>system<|end_header_id|>\n\n{LLAVA_SYSTEM}<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nA dog.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nMore?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nNo.<|eot_id|>",
            ["A dog.<|eot_id|>", "No.<|eot_id|>"],
        ),
        (
            "phi_3",
            "<|system|>\nYou are a helpful AI assistant.<|end|>\n<|user|>\n<image>\nWhat?<|end|>\n"
            "<|assistant|>\nA dog.<|end|>\n<|user|>\nMore?<|end|>\n<|assistant|>\nNo.<|end|>\n",
            ["A dog.<|end|>", "No.<|end|>"],
        ),
        (
            "chatml",
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<image>\nWhat?<|im_end|>\n"
            "<|im_start|>assistant\nA dog.<|im_end|>\n<|im_start|>user\nMore?<|im_end|>\n"
            "<|im_start|>assistant\nNo.<|im_end|>\n",
            ["A dog.<|im_end|>", "No.<|im_end|>"],
        ),
    ],
)
def test_a_template_writes_the_published_text_and_marks_answers_with_their_ends(
    name: str, text: str, answers: list[str]
) -> None:
    rendered, spans = ChatTemplate(name, tiny_tokenizer()).render(TURNS)
    assert rendered == text
    assert [rendered[start:end] for start, end in spans] == answers


@pytest.mark.parametrize("name", names())
def test_what_serving_asks_is_the_beginning_of_what_was_trained(name: str) -> None:
    """The engine renders the question with a generation prompt; the answer that was trained stands right after it."""
    tokenizer = tiny_tokenizer()
    template = ChatTemplate(name, tokenizer)
    asked = tokenizer.apply_chat_template(
        TURNS[:1], chat_template=template.source, add_generation_prompt=True, tokenize=False
    )
    rendered, spans = template.render(TURNS[:2])
    assert rendered[: spans[0][0]] == asked


@pytest.mark.parametrize("name", ["vicuna_v1", "llama_3", "phi_3", "chatml"])
def test_a_system_message_takes_the_place_of_the_templates_own_and_an_empty_one_leaves_none(name: str) -> None:
    template = ChatTemplate(name, tiny_tokenizer())
    own, _ = template.render(TURNS)
    given, _ = template.render([{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *TURNS])
    none, _ = template.render([{"role": "system", "content": ""}, *TURNS])
    assert "Be brief." in given and "assistant gives" not in given and "helpful" not in given
    assert len(none) < len(given) < len(own) and own.endswith(none.removeprefix("<s>"))


def test_a_tokenizers_own_template_serves_where_it_marks_answers(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer().__class__.from_pretrained(_saved(tmp_path))
    with pytest.raises(RequestError, match="no chat template of its own"):
        ChatTemplate("tokenizer", tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{% endfor %}"
    with pytest.raises(RequestError, match="does not mark answers"):
        ChatTemplate("tokenizer", tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
        "{% else %}{{ m['content'] + '|' }}{% endif %}{% endfor %}"
    )
    rendered, spans = ChatTemplate("tokenizer", tokenizer).render(TURNS[:2])
    assert rendered == "<image>\nWhat?|A dog."  # it knows text only: the picture is written as vLLM would
    assert [rendered[start:end] for start, end in spans] == ["A dog."]


def _saved(folder: Path) -> Path:
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_what_cannot_serve_as_a_template_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"There are: chatml, llama_3, phi_3, plain, vicuna_v1"):
        ChatTemplate("vicuna", tiny_tokenizer())
    with pytest.raises(RequestError, match="does not exist"):
        ChatTemplate(str(tmp_path / "none.jinja"), tiny_tokenizer())
    blind = tmp_path / "blind.jinja"
    blind.write_text("{% generation %}x{% endgeneration %}")
    with pytest.raises(RequestError, match="leaves pictures out"):
        ChatTemplate(str(blind), tiny_tokenizer())
    broken = tmp_path / "broken.jinja"
    broken.write_text("{% for %}")
    with pytest.raises(RequestError, match="cannot be rendered"):
        ChatTemplate(str(broken), tiny_tokenizer())


def test_a_conversation_that_a_template_refuses_is_a_bad_row(tmp_path: Path) -> None:
    strict = tmp_path / "strict.jinja"
    strict.write_text(
        "{% if messages | length > 2 %}{{ raise_exception('two turns only') }}{% endif %}"
        "<image>{% generation %}x{% endgeneration %}"
    )
    with pytest.raises(BadRowError, match="two turns only"):
        ChatTemplate(str(strict), tiny_tokenizer()).render(TURNS)
