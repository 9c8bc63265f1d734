"""The request that is made of one row: the prompt, the picture, and boxes for models that look at them.

The caption stage, `densefusion prompt` and `densefusion evaluate` make theirs here; nothing else may put one together.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fusion.budget import Budget, BudgetSection, budget_of, counts_as_the_worker
from fusion.checkpoint import takes_boxes
from fusion.engine import BadInputError, Draw, EngineSection, Question, SamplingSection
from fusion.image_url import image_url
from fusion.prompt import Messages, Prompt, PromptSection

BOX_TOKENS = 1
"""Of each box, in the engines that look at boxes (fusion.model.processing)."""
Turns = Sequence[dict[str, Any]]


class CaptionRequest:
    """Makes requests to one engine by one prompt.

    Args:
        sampling: of the requests; `max_tokens` of it is room in the engine's window.
        image_max_side: pixels; a longer picture is sent scaled down to it.
        identity: of what answers, as a fingerprint holds it.

    Attributes:
        prompt: renders within `budget`.
        boxes_beside: whether the engine's model looks at boxes, and gets those that the text shows.

    Raises:
        RequestError: the template or the tokenizer cannot be had, or the instructions alone do not fit.
    """

    def __init__(
        self,
        engine: EngineSection,
        prompt: PromptSection,
        budget: BudgetSection,
        sampling: SamplingSection,
        image_max_side: int,
        identity: str = "",
    ) -> None:
        self._engine, self._sampling = engine, sampling
        self._image_max_side, self._identity = image_max_side, identity
        self.boxes_beside = takes_boxes(engine)
        self.budget = _budget(engine, budget, sampling, self.boxes_beside)
        self.prompt = Prompt(prompt, self.budget)
        self.prompt.check()

    def image_url(self, image: bytes) -> str:
        """Raises BadInputError where the bytes do not decode."""
        try:
            return image_url(image, self._image_max_side)
        except ValueError as error:
            raise BadInputError(str(error)) from error

    def key(
        self, messages: Messages, sha256: str, turns: Turns = (), further: Any = None, draw: Draw | None = None
    ) -> str:
        """32 hex digits of everything that an answer depends on.

        Args:
            sha256: of the image's original bytes.
            further: what else the request says, as JSON knows it.
        """
        sampling = {name: getattr(self._sampling, name) for name in SamplingSection.model_fields}
        said = {
            "engine": [self._identity, self._engine.decides()],
            "sampling": sampling | (asdict(draw) if draw is not None else {}),
            "further": further,
            "image": [sha256, self._image_max_side],
            "messages": [messages.system, messages.user, list(turns)],
            "boxes": self._boxes(messages),
        }
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def question(
        self, messages: Messages, url: str, turns: Turns = (), affinity: str = "", draw: Draw | None = None
    ) -> Question:
        """One request: system text first, the same for every row, then the picture, then the notes.

        Args:
            turns: of the conversation so far, after the first question.
        """
        return Question([*_openai_messages(messages, url), *turns], self._boxes(messages), affinity, draw)

    def _boxes(self, messages: Messages) -> list[list[float]] | None:
        if not self.boxes_beside:
            return None
        return [[box["x1"], box["y1"], box["x2"], box["y2"]] for box in messages.boxes]


def check_instructions(
    engine: EngineSection, prompt: PromptSection, budget: BudgetSection, sampling: SamplingSection
) -> None:
    """Whether the instructions fit into the engine's window, as far as this machine can tell without the Hub.

    Raises:
        RequestError: they do not, or the template or the tokenizer cannot be read.
    """
    if counts_as_the_worker(budget, engine):
        Prompt(prompt, _budget(engine, budget, sampling, boxes_beside=False)).check()


def _budget(engine: EngineSection, budget: BudgetSection, sampling: SamplingSection, boxes_beside: bool) -> Budget:
    return budget_of(budget, engine, sampling.max_tokens, BOX_TOKENS if boxes_beside else 0)


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
