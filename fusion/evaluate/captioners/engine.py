"""Captions of an engine behind the OpenAI chat API, as the caption stage asks it."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fusion.checkpoint import takes_boxes
from fusion.engine import Answer, BadInputError, Engine, MessageList, Question
from fusion.evaluate.captioners.base import Captioned, Captioner, messages, picture_file
from fusion.evaluate.section import EngineCaptioner
from fusion.evaluate.truth import TruthRow
from fusion.pictures import decoded
from fusion.prompt import Prompt, PromptSection
from schemas.errors import SetupError


class CaptionsOfEngine(Captioner):
    """Starts a vLLM server for as long as it captions, or asks the one at `engine.base_url`."""

    def __init__(self, section: EngineCaptioner, prompt: PromptSection, images: Path) -> None:
        self._section, self._images = section, images
        self._prompt = Prompt(section.prompt or prompt)

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
            boxes = takes_boxes(section.engine)
            made = [self._question(row, file, boxes) for row, file in zip(rows, files, strict=True)]
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

    def _question(self, row: TruthRow, file: Path, with_boxes: bool) -> Callable[[], Question]:
        def make() -> Question:
            said = messages(row, self._section.notes, self._prompt)
            try:
                url = _data_url(file.read_bytes(), self._section.image_max_side)
            except ValueError as error:
                raise BadInputError(f"{file}: {error}") from error
            boxes = [[box["x1"], box["y1"], box["x2"], box["y2"]] for box in said.boxes]
            content: list[dict[str, Any]] = [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": said.user},
            ]
            asked: MessageList = [{"role": "system", "content": said.system}, {"role": "user", "content": content}]
            return Question(asked, boxes if with_boxes else None)

        return make


def _data_url(data: bytes, max_side: int) -> str:
    """The picture as a PNG: what the engine sees is what the file holds, upright and at most `max_side` px long."""
    picture = decoded(data)
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    png = io.BytesIO()
    picture.save(png, "PNG")
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
