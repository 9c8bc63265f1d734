"""Conversations as text, and which part of the text is answer.

A template is a chat template as transformers and vLLM render it, with `{% generation %}` around answers; it is saved
with the model, so that serving shows it the text that it was trained on.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fusion.train.sources.base import BadRowError, Message
from schemas.errors import RequestError

IMAGE_TOKEN = "<image>"
_OWN = "tokenizer"
_PROBE: list[Message] = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "!"}]},
]

Span = tuple[int, int]
"""First character and the one after the last."""


class ChatTemplate:
    """A template together with the special tokens of one tokenizer.

    Args:
        name: of a file in `fusion/train/templates`, path of a `.jinja` file, or `tokenizer` for the tokenizer's own.

    Raises:
        RequestError: there is no such template, it is no Jinja, or it does not mark answers.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.source = _source(name, tokenizer)
        self._name, self._special = name, dict(tokenizer.special_tokens_map)
        self._in_parts = self._takes_parts()
        try:
            rendered, answers = self._render(_PROBE if self._in_parts else _flat(_PROBE))
        except Exception as error:  # templates raise what they like
            raise RequestError(
                f"The template {name} cannot be rendered: {type(error).__name__}: {' '.join(str(error).split())}."
            ) from None
        if not answers:
            raise RequestError(
                f"The template {name} does not mark answers with {{% generation %}}, so it cannot be told what is to "
                f"be learnt. Use one of {', '.join(names())}, or a .jinja file with the marks (setting `template`)."
            )
        if IMAGE_TOKEN not in rendered:
            raise RequestError(f"The template {name} leaves pictures out: it prints no {IMAGE_TOKEN} for one.")

    def render(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """The text, and the places of the answers in it, their ends included.

        Raises:
            BadRowError: the template refuses the conversation.
        """
        try:
            return self._render(messages if self._in_parts else _flat(messages))
        except Exception as error:  # templates raise what they like, mostly about the order of roles
            raise BadRowError("malformed", f"the template {self._name} refuses it: {error}") from None

    def _takes_parts(self) -> bool:
        """Whether the template knows content in parts, or only text."""
        try:
            return IMAGE_TOKEN in self._render(_PROBE)[0]
        except Exception:  # templates for text fail on a list in many ways
            return False

    def _render(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, spans = render_jinja_template(
            conversations=[list(messages)],
            chat_template=self.source,
            return_assistant_tokens_mask=True,
            **self._special,
        )
        return texts[0], [(start, end) for start, end in spans[0]]


def names() -> list[str]:
    """Names of the templates that ship with the package."""
    folder = resources.files("fusion").joinpath("train/templates")
    return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".jinja"))


def _source(name: str, tokenizer: Any) -> str:
    if name == _OWN:
        if not isinstance(tokenizer.chat_template, str):
            raise RequestError(
                f"The tokenizer has no chat template of its own. Use one of {', '.join(names())} (setting `template`)."
            )
        return tokenizer.chat_template
    if name.endswith(".jinja"):
        if not Path(name).is_file():
            raise RequestError(f"The template {name} does not exist. Give the path of a .jinja file (`template`).")
        return Path(name).read_text(encoding="utf-8")
    if name not in names():
        raise RequestError(
            f"There is no template {name}. There are: {', '.join(names())}, `{_OWN}`, or the path of a .jinja file."
        )
    return resources.files("fusion").joinpath("train/templates", f"{name}.jinja").read_text(encoding="utf-8")


def _flat(messages: Sequence[Message]) -> list[Message]:
    """For templates that know text only: pictures as their token, as vLLM writes them for such templates."""

    def text(content: Any) -> str:
        if isinstance(content, str):
            return content
        return "\n".join(IMAGE_TOKEN if part["type"] == "image" else part["text"] for part in content)

    return [{**one, "content": text(one["content"])} for one in messages]
