"""Florence-2: caption, text with regions, region captions and boxes of phrases, through transformers' native classes.

One model, several prompts: the image tower looks at a picture once, and the language model answers every prompt from
the same image features, all prompts together. The processor's tasks stand for questions in plain words; those of
`<DETAILED_CAPTION>`, `<OCR>` and `<DENSE_REGION_CAPTION>` are the three that Florence-VL asks (arXiv 2412.04424).
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image
from pydantic import Field, model_validator

from experts.base import (
    Context,
    Expert,
    ModelExpertSection,
    Pixels,
    Prior,
    bounded,
    compiled,
    finite,
    load_pretrained,
    stacked,
    torch_dtype,
)
from schemas.errors import SetupError
from schemas.section import located
from schemas.tables import FLORENCE_PRIOR

CAPTION = "<MORE_DETAILED_CAPTION>"
CAPTIONS = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "more_detailed": CAPTION}
TEXT = "<OCR_WITH_REGION>"
REGIONS = "<DENSE_REGION_CAPTION>"
PHRASES = "<CAPTION_TO_PHRASE_GROUNDING>"

# Florence-2 writes coordinates as 1000 bins a side; asked for an image of 1000 x 1000, its parser gives the bins back.
BINS = 1000
LOCATION = re.compile(r"<?loc_\d+>")
LONGEST_SIDE = 4096
LONGEST_ASPECT = 8.0


class FlorenceSection(ModelExpertSection):
    """Florence-2."""

    model: str = located(
        "florence-community/Florence-2-large-ft", description="hub id (org/name) or local folder of a Florence-2 model"
    )
    max_new_tokens: int = Field(
        1024, ge=1, le=4096, description="longest answer to one prompt; the model's own positions are a limit too"
    )
    beams: int = Field(3, ge=1, le=16, description="beam search width; 1 is greedy")
    caption: Literal["none", "short", "detailed", "more_detailed"] = Field(
        "more_detailed", description="the caption to ask for: a phrase, a sentence or two, a paragraph"
    )
    text: bool = Field(True, description="ask for the text with its regions")
    regions: bool = Field(True, description="ask for captions of regions")
    phrases: Literal["none", "caption", "tags"] = Field(
        "none", description="phrases to ask boxes for: those of the model's own caption, or the tags of perceive.tags"
    )
    max_phrases: int = Field(
        20, ge=1, le=200, description="best tags asked for where `phrases` is tags; a prompt that is too long is cut"
    )

    @model_validator(mode="after")
    def _caption_is_there(self) -> "FlorenceSection":
        if self.phrases == "caption" and self.caption == "none":
            raise ValueError("phrases: caption needs a caption: set caption to short, detailed or more_detailed")
        return self


_Answers = dict[str, str]
"""What the model says of one picture, with all its tokens, by task."""


@dataclass(frozen=True)
class _Ask:
    """One prompt about one picture of the batch."""

    picture: int
    task: str
    about: str = ""


class Florence(Expert):
    """Up to four prompts an image; coordinates are the centres of the model's bins."""

    name = "florence"
    version = 2
    schema = FLORENCE_PRIOR
    section = FlorenceSection
    about = "Florence-2: caption, text, regions, boxes of phrases; not one of the paper's experts"
    config: FlorenceSection

    @property
    def needs(self) -> tuple[str, ...]:
        return ("tags",) if self.config.phrases == "tags" else ()

    def open(self, device: str) -> None:
        from transformers import AutoProcessor, Florence2ForConditionalGeneration

        self._processor, self._model = load_pretrained(
            self.name, self.config, AutoProcessor, Florence2ForConditionalGeneration, device
        )
        self._can_parse()
        self._see = compiled(self._model.get_image_features, self.config)
        self._read = compiled(self._model.get_encoder(), self.config)
        self._device = device

    def _tasks(self) -> list[str]:
        """Of every picture, those that go by nothing but the picture."""
        caption = [CAPTIONS[self.config.caption]] if self.config.caption != "none" else []
        return caption + [TEXT] * self.config.text + [REGIONS] * self.config.regions

    def _can_parse(self) -> None:
        kinds, rules = self._processor.tasks_answer_post_processing_type, self._processor.post_processor_config or {}
        for task in [*self._tasks(), *[PHRASES] * (self.config.phrases != "none")]:
            if kinds.get(task) not in rules:
                raise SetupError(
                    f"perceive.florence is set to ask {self.config.model} for {task}, but the model's processor has no "
                    f"rules for such answers (post_processor_config in processor_config.json lacks {kinds.get(task)}): "
                    "the model was not made for that task. Switch it off in perceive.florence, or take another model."
                )

    def least(self) -> tuple[int, int] | None:
        size = self._processor.image_processor.size
        return (size["width"], size["height"]) if "width" in size and "height" in size else None

    def prepare(self, image: Image.Image) -> Pixels:
        seen = bounded(image, LONGEST_SIDE, LONGEST_ASPECT)
        found = self._processor.image_processor(images=seen, return_tensors="pt")
        return Pixels(found.pixel_values[0], image.size)

    def look(self, prepared: list[Any], contexts: list[Context]) -> list[_Answers]:
        import torch

        pictures = range(len(prepared))
        with torch.inference_mode():
            pixels = stacked(prepared, self._device, torch_dtype(self.config))
            seen = finite(self._see(pixel_values=pixels).pooler_output, self.name)
            said = self._answers([_Ask(i, task) for i in pictures for task in self._tasks()], seen)
            grounded = self._answers(self._phrases(contexts, said), seen)
        return [one | other for one, other in zip(said, grounded, strict=True)]

    def _phrases(self, contexts: list[Context], said: list[_Answers]) -> list[_Ask]:
        """What to ask boxes for: of a picture without a caption or tags, nothing."""
        if self.config.phrases == "none":
            return []
        if self.config.phrases == "caption":
            about = [self._caption(answers) or "" for answers in said]
        else:
            tags = [context["tags"]["tags"][: self.config.max_phrases] for context in contexts]
            about = [", ".join(tag["tag"] for tag in one) for one in tags]
        return [_Ask(i, PHRASES, text) for i, text in enumerate(about) if text]

    def _answers(self, asks: list[_Ask], seen: Any) -> list[_Answers]:
        """What the model says of each picture of `seen` (n, image tokens, width)."""
        import torch

        answers: list[_Answers] = [{} for _ in seen]
        if not asks:
            return answers
        text = self._model.config.text_config
        image = seen[[ask.picture for ask in asks]]
        ids, mask = self._ids(asks, text.max_position_embeddings - image.shape[1])
        words = self._model.get_input_embeddings()(ids)
        mask = torch.cat([mask.new_ones(image.shape[:2]), mask], dim=1)
        said = self._model.generate(
            encoder_outputs=self._read(inputs_embeds=torch.cat([image, words], dim=1), attention_mask=mask),
            attention_mask=mask,
            max_new_tokens=min(self.config.max_new_tokens, text.max_position_embeddings),
            num_beams=self.config.beams,
            do_sample=False,
        )
        decoded = self._processor.batch_decode(said, skip_special_tokens=False)
        for ask, answer in zip(asks, decoded, strict=True):
            answers[ask.picture][ask.task] = answer
        return answers

    def _ids(self, asks: list[_Ask], most: int) -> tuple[Any, Any]:
        """Tokens of the prompts as the processor writes them after an image's, at most `most` each, and their mask."""
        import torch

        tokenizer = self._processor.tokenizer
        rows = [tokenizer(self._prompt(ask), add_special_tokens=False).input_ids[: most - 2] for ask in asks]
        rows = [[tokenizer.bos_token_id, *row, tokenizer.eos_token_id] for row in rows]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return ids.to(self._device), mask.to(self._device)

    def _prompt(self, ask: _Ask) -> str:
        if ask.task == PHRASES:
            return self._processor.task_prompts_with_input[ask.task].format(input=ask.about.strip())
        return self._processor.task_prompts_without_inputs[ask.task]

    def finish(self, looked: _Answers) -> Prior:
        def found(task: str) -> Any:
            return self._parsed(looked[task], task) if task in looked else None

        text, regions, phrases = found(TEXT), found(REGIONS), found(PHRASES)
        return {
            "caption": self._caption(looked),
            "lines": text_lines(text) if text is not None else [],
            "regions": region_boxes(regions) if regions is not None else [],
            "phrases": region_boxes(phrases) if phrases is not None else [],
        }

    def _caption(self, answers: _Answers) -> str | None:
        task = CAPTIONS.get(self.config.caption)
        return None if task is None else plain(self._parsed(answers[task], task))

    def _parsed(self, answer: str, task: str) -> Any:
        text = answer.replace(self._processor.tokenizer.pad_token, "")
        return self._processor.post_process_generation(text=text, task=task, image_size=(BINS, BINS))[task]

    def close(self) -> None:
        self._model = self._processor = self._see = self._read = None


def text_lines(found: dict) -> list[dict]:
    """Rows of schemas.tables.TEXT_LINE from Florence-2's quads, whose corners are bin numbers."""
    return [
        {"text": text, "score": 1.0, "polygon": [(bin_ + 0.5) / BINS for bin_ in quad]}
        for text, quad in zip(map(plain, found["labels"]), found["quad_boxes"], strict=True)
        if text
    ]


def region_boxes(found: dict) -> list[dict]:
    """Rows of schemas.tables.BOX from Florence-2's boxes, whose corners are bin numbers; empty boxes are left out."""
    boxes: list[dict] = []
    for label, corners in zip(map(plain, found["labels"]), found["bboxes"], strict=True):
        x1, y1, x2, y2 = ((bin_ + 0.5) / BINS for bin_ in corners)
        if label and x1 < x2 and y1 < y2:
            place = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
            boxes.append({"label": label, "score": 1.0, **place, "anchor": len(boxes)})
    return boxes


def plain(text: str) -> str:
    """Words without the location tokens that the library's parser leaves in where the model wrote too many or few."""
    return LOCATION.sub("", text).strip()
