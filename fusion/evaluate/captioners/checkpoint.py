"""Captions of a checkpoint, by transformers in this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.evaluate.captioners.base import Captioned, Captioner, messages, picture_file
from fusion.evaluate.section import CheckpointCaptioner
from fusion.evaluate.truth import TruthRow
from fusion.prompt import Messages, Prompt, PromptSection
from schemas.errors import SetupError
from schemas.pictures import decode_rgb


class CaptionsOfCheckpoint(Captioner):
    """Greedy decoding, as the caption stage asks for by default."""

    def __init__(self, section: CheckpointCaptioner, prompt: PromptSection, images: Path) -> None:
        self._section, self._images = section, images
        self._prompt = Prompt(section.prompt or prompt)

    def caption(self, rows: Sequence[TruthRow]) -> list[Captioned]:
        files = [picture_file(row, self._images) for row in rows]
        model, processor = self._load()
        said = [messages(row, self._section.notes, self._prompt) for row in rows]
        # Those of one length together, so that little is padding.
        order = sorted(range(len(rows)), key=lambda i: len(said[i].user))
        captions: dict[int, Captioned] = {}
        for start in range(0, len(order), self._section.batch_size):
            part = order[start : start + self._section.batch_size]
            some = self._some(model, processor, [said[i] for i in part], [files[i] for i in part])
            captions |= dict(zip(part, some, strict=True))
        return [captions[i] for i in range(len(rows))]

    def _load(self) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from fusion.model import register

        register()
        section = self._section
        try:
            processor = AutoProcessor.from_pretrained(section.model, revision=section.revision)
            model = AutoModelForImageTextToText.from_pretrained(
                section.model, revision=section.revision, dtype=getattr(torch, section.dtype)
            )
            model = model.to(section.device).eval()
        except Exception as error:  # the libraries raise many kinds
            words = " ".join(str(error).split())[:400]
            raise SetupError(
                f"The checkpoint {section.model} does not load: {words} Check that it is a folder or a hub id of "
                "a model that takes pictures, and the device."
            ) from error
        if getattr(processor, "chat_template", None) is None:
            raise SetupError(
                f"The checkpoint {section.model} has no chat template, so it cannot be asked as an engine."
            )
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        return model, processor

    def _some(self, model: Any, processor: Any, said: Sequence[Messages], files: Sequence[Path]) -> list[Captioned]:
        import torch

        pictures: list[Any] = []
        failures: dict[int, str] = {}
        for i, file in enumerate(files):
            try:
                pictures.append(decode_rgb(file.read_bytes()))
            except ValueError as error:
                failures[i] = f"{file}: {error}"
        good = [one for i, one in enumerate(said) if i not in failures]
        texts: list[str] = []
        if good:
            further: dict[str, Any] = {}
            if getattr(processor.image_processor, "takes_boxes", False):
                further["boxes"] = [[[b["x1"], b["y1"], b["x2"], b["y2"]] for b in one.boxes] for one in good]
            prompts = [processor.apply_chat_template(_chat(one), add_generation_prompt=True) for one in good]
            inputs = processor(
                text=prompts, images=pictures, padding=True, add_special_tokens=False, return_tensors="pt", **further
            ).to(self._section.device, getattr(torch, self._section.dtype))
            with torch.inference_mode():
                ids = model.generate(**inputs, do_sample=False, max_new_tokens=self._section.max_tokens)
            texts = processor.tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        answers = iter(texts)
        return [
            Captioned("", failures[i]) if i in failures else Captioned(next(answers).strip()) for i in range(len(said))
        ]


def _chat(one: Messages) -> list[dict[str, Any]]:
    content = [{"type": "image"}, {"type": "text", "text": one.user}]
    return [
        {"role": "system", "content": [{"type": "text", "text": one.system}]},
        {"role": "user", "content": content},
    ]
