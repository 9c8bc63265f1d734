"""Grounding DINO and MM-Grounding-DINO: all tags in one sentence, boxes with a score for each of its words.

The sentence is transformers' own ("cat. traffic light."), and so is a box's score, the highest sigmoid of a word
(GroundingDinoProcessor.post_process_grounded_object_detection). The label differs: there it is every word above a text
threshold, which gives halves of tags and several tags in one ("traffic", "cat dog"); here a tag's score is that of its
best word, so that each box has a score for every tag, and a text threshold has nothing to decide.

Words are read together with all others of the sentence: with other tags beside it a tag's scores are other ones, and a
tag left out later is left out only. Tags that do not fit into one sentence are asked in a further run of the model;
boxes of two sentences know nothing of each other.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from experts.base import Pixels, compiled, finite, load_pretrained, torch_dtype
from experts.boxes import corners
from experts.detr_pixels import batched, least_side, masked_pixels
from experts.open_set_detectors.base import OpenDetector, Scored, above
from schemas.errors import SetupError

# The model tells one class from the next by these two (SPECIAL_TOKENS of its modelling file).
_SEPARATORS = re.compile(r"[.?]")


@dataclass(frozen=True)
class Sentence:
    """Tags that are asked at once.

    Attributes:
        text: as transformers' processor writes it.
        tags: their places in the list of tags asked about.
        spans: (start, end) of each in the text, characters.
    """

    text: str
    tags: list[int]
    spans: list[tuple[int, int]]


class GroundingDinoDetector(OpenDetector):
    """An anchor is a query of the decoder, numbered on over the sentences."""

    model_types = ("grounding-dino", "mm-grounding-dino")

    def open(self, device: str) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoProcessor

        self._processor, self._model = load_pretrained(
            "open_set", self.config, GroundingDinoProcessor, AutoModelForZeroShotObjectDetection, device
        )
        kind = self._model.config.model_type
        if kind not in self.model_types:
            raise SetupError(
                f"perceive.open_set: {self.config.model} is a model of type {kind}, and family grounding_dino takes "
                f"{' or '.join(self.model_types)}. Set perceive.open_set.model or perceive.open_set.family."
            )
        self._forward = compiled(self._model, self.config)
        self._device = device

    def least(self) -> tuple[int, int] | None:
        return least_side(self._processor.image_processor)

    def prepare(self, image: Image.Image) -> Pixels:
        return masked_pixels(self._processor.image_processor, image)

    def look(self, prepared: list[Pixels], tags: list[list[str]]) -> list[Scored]:
        asked = [self.sentences(one) for one in tags]
        found: list[list[Scored]] = [[] for _ in prepared]
        for turn in range(max(map(len, asked))):
            members = [i for i, sentences in enumerate(asked) if turn < len(sentences)]
            looked = self._turn([prepared[i] for i in members], [asked[i][turn] for i in members], turn)
            for i, one in zip(members, looked, strict=True):
                found[i].append(one)
        return [_joined(parts) for parts in found]

    def _turn(self, prepared: list[Any], sentences: list[Sentence], turn: int) -> list[Scored]:
        """One sentence of each picture."""
        import torch

        tokens = self._processor.tokenizer(
            [one.text for one in sentences],
            padding=True,
            return_token_type_ids=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = tokens.pop("offset_mapping").numpy()
        with torch.inference_mode():
            outputs = self._forward(
                **batched(prepared, self._device, torch_dtype(self.config)), **tokens.to(self._device)
            )
            logits, boxes = outputs.logits.float(), finite(outputs.pred_boxes.float(), "open_set").cpu().numpy()
            return [
                self._scored(logits[i], boxes[i], one, offsets[i], turn * boxes.shape[1])
                for i, one in enumerate(sentences)
            ]

    def _scored(self, logits: Any, boxes: np.ndarray, sentence: Sentence, offsets: np.ndarray, first: int) -> Scored:
        """What is seen of one picture.

        Args:
            logits: float32 tensor (queries, tokens or more).
            boxes: (queries, 4) centre x, centre y, width, height; fractions of the picture.
            offsets: (tokens, 2) start and end of each token in the text, characters.
            first: number of the first query's anchor.
        """
        import torch

        owners = token_owners(sentence.spans, offsets)
        words = torch.from_numpy(np.flatnonzero(owners >= 0)).to(logits.device)
        scores = finite(logits[:, words], "open_set").sigmoid()
        columns = torch.from_numpy(owners[owners >= 0]).to(logits.device).expand(len(scores), -1)
        best = scores.new_zeros(len(scores), len(sentence.tags)).scatter_reduce(1, columns, scores, "amax")
        queries, asked, values = above(best, self.config.floor)
        return Scored(np.array(sentence.tags)[asked], values, corners(boxes)[queries], first + queries)

    def sentences(self, tags: list[str]) -> list[Sentence]:
        """The tags in order, as many a sentence as the model reads; tags without a word are left out."""
        room = self._model.config.max_text_len - 2
        made: list[list[tuple[int, str]]] = []
        used = room
        for place, tag in enumerate(tags):
            phrase, tokens = self._phrase(tag, room)
            if not phrase:
                continue
            if used + tokens > room:
                made.append([])
                used = 0
            made[-1].append((place, phrase))
            used += tokens
        return [_sentence(members) for members in made]

    def _phrase(self, tag: str, room: int) -> tuple[str, int]:
        """The tag as a class of the sentence, and the tokens that it takes with the stop behind it."""
        phrase = " ".join(_SEPARATORS.sub(" ", tag).lower().split())
        ends = self._processor.tokenizer(phrase, add_special_tokens=False, return_offsets_mapping=True).offset_mapping
        if len(ends) < room:
            return phrase, len(ends) + 1
        return phrase[: ends[room - 2][1]], room

    def close(self) -> None:
        self._model = self._processor = self._forward = None


def _sentence(members: list[tuple[int, str]]) -> Sentence:
    text, spans = "", []
    for _, phrase in members:
        spans.append((len(text), len(text) + len(phrase)))
        text += f"{phrase}. "
    return Sentence(text.rstrip(), [place for place, _ in members], spans)


def token_owners(spans: list[tuple[int, int]], offsets: np.ndarray) -> np.ndarray:
    """For each token, the number of the span that it begins in; -1 for stops and special tokens.

    Args:
        spans: (start, end) in characters, in order.
        offsets: (tokens, 2) start and end of each token; special ones are empty.
    """
    starts, ends = np.array(spans, dtype=np.int64).T
    owners = np.searchsorted(starts, offsets[:, 0], side="right") - 1
    inside = (offsets[:, 1] > offsets[:, 0]) & (offsets[:, 0] < ends[owners])
    return np.where(inside, owners, -1)


def _joined(parts: list[Scored]) -> Scored:
    if not parts:
        return Scored.nothing()
    return Scored(
        tags=np.concatenate([one.tags for one in parts]),
        scores=np.concatenate([one.scores for one in parts]),
        boxes=np.concatenate([one.boxes for one in parts]),
        anchors=np.concatenate([one.anchors for one in parts]),
    )
