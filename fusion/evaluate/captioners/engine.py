"""Captions of an engine behind the OpenAI chat API, as the caption stage asks it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fusion.engine import Answer, BadInputError, Engine, Question
from fusion.evaluate.captioners.base import Captioned, Captioner, messages, picture_file
from fusion.evaluate.section import EngineCaptioner
from fusion.evaluate.truth import TruthRow
from fusion.prompt import PromptSection
from fusion.request import CaptionRequest
from schemas.errors import SetupError


class CaptionsOfEngine(Captioner):
    """Starts a vLLM server for as long as it captions, or asks the one at `engine.base_url`."""

    def __init__(self, section: EngineCaptioner, prompt: PromptSection, images: Path) -> None:
        self._section, self._images = section, images
        chosen = section.prompt or prompt
        self._request = CaptionRequest(section.engine, chosen, section.budget, section, section.image_max_side)

    def caption(self, rows: Sequence[TruthRow]) -> list[Captioned]:
        files = [picture_file(row, self._images) for row in rows]
        section = self._section
        engine = Engine(
            section.engine,
            section.device,
            concurrency=section.concurrency,
            timeout_s=section.timeout_s,
            retries=section.retries,
        )
        try:
            engine.start()
            made = [partial(self._question, row, file) for row, file in zip(rows, files, strict=True)]
            answers = engine.client(section).ask(made)
        finally:
            engine.stop()
        if not any(isinstance(one, Answer) for one in answers):
            detail = next((one.detail for one in answers if not isinstance(one, Answer)), "")
            raise SetupError(
                f"The engine at {', '.join(section.engine.urls) or 'a vLLM server started here'} (model "
                f"{section.engine.model}) answered none of {len(rows)} requests. The first time: {detail}. Check that "
                "it is up, serves this model under this name, takes pictures and has a chat template."
            )
        return [Captioned(one.text) if isinstance(one, Answer) else Captioned("", one.detail) for one in answers]

    def _question(self, row: TruthRow, file: Path) -> Question:
        said = messages(row, self._section.notes, self._request.prompt)
        try:
            return self._request.question(said, self._request.image_url(file.read_bytes()))
        except BadInputError as error:
            raise BadInputError(f"{file}: {error}") from error
