"""The request that the caption stage makes of one row: the prompt, the picture, and boxes for models that look at them.

`densefusion prompt` shows what is made here, so nothing else may put a request together.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fusion.budget import Budget, budget_of, counts_as_the_worker
from fusion.checkpoint import takes_boxes
from fusion.engine import BadInputError, Question, SamplingSection
from fusion.prompt import Messages, Prompt
from stages.image_url import image_url

if TYPE_CHECKING:
    from stages.caption_section import CaptionSection

Turns = Sequence[dict[str, Any]]
BOX_TOKENS = 1
"""Of each box, in the engines that look at boxes (fusion.model.processing)."""


class CaptionRequest:
    """Makes requests by a caption section.

    Args:
        engine: identity of what answers.

    Attributes:
        prompt: renders within `budget`.
        boxes_beside: whether the engine's model looks at boxes, and gets those that the text shows.

    Raises:
        RequestError: the template or the tokenizer cannot be had, or the instructions alone do not fit.
    """

    def __init__(self, config: "CaptionSection", engine: str = "") -> None:
        self._config = config
        self._engine = engine
        self.boxes_beside = takes_boxes(config.engine)
        self.budget = _budget(config, self.boxes_beside)
        self.prompt = Prompt(config.prompt, self.budget)
        self.prompt.check()

    def image_url(self, image: bytes) -> str:
        """Raises BadInputError where the bytes do not decode."""
        try:
            return image_url(image, self._config.image_max_side)
        except ValueError as error:
            raise BadInputError(str(error)) from error

    def key(self, messages: Messages, sha256: str, turns: Turns = ()) -> str:
        """32 hex digits of everything that an answer depends on.

        Args:
            sha256: of the image's original bytes.
        """
        config = self._config
        boxes = [[box["x1"], box["y1"], box["x2"], box["y2"]] for box in messages.boxes] if self.boxes_beside else None
        said = {
            "engine": [self._engine, config.engine.decides()],
            "sampling": {name: getattr(config, name) for name in SamplingSection.model_fields},
            "structured": config.structured.decides() if config.structured is not None else None,
            "image": [sha256, config.image_max_side],
            "messages": [messages.system, messages.user, list(turns)],
            "boxes": boxes,
        }
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def question(self, messages: Messages, url: str, turns: Turns = (), affinity: str = "") -> Question:
        """One request: system text first, the same for every row, then the picture, then the notes.

        Args:
            turns: of the conversation so far, after the first question.
        """
        boxes = [[box["x1"], box["y1"], box["x2"], box["y2"]] for box in messages.boxes]
        asked = [*_openai_messages(messages, url), *turns]
        return Question(asked, boxes if self.boxes_beside else None, affinity)


def check_budget(config: "CaptionSection") -> None:
    """Whether the instructions fit into the engine's window, as far as this machine can tell without the Hub.

    Raises:
        RequestError: they do not, or the template or the tokenizer cannot be read.
    """
    if counts_as_the_worker(config.budget, config.engine):
        Prompt(config.prompt, _budget(config, boxes_beside=False)).check()


def _budget(config: "CaptionSection", boxes_beside: bool) -> Budget:
    return budget_of(config.budget, config.engine, config.max_tokens, BOX_TOKENS if boxes_beside else 0)


def _openai_messages(messages: Messages, url: str) -> list[dict[str, Any]]:
    return [
        {"role": "system", "content": messages.system},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": messages.user},
            ],
        },
    ]
