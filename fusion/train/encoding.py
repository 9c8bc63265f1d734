"""From a conversation with pictures to what the model takes: token ids, labels on answers alone, pixels, boxes."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from PIL import Image

from fusion.model.processing import FusionProcessor
from fusion.train.chat_template import ChatTemplate, Span
from fusion.train.sources.base import BadRowError, Sample
from schemas.errors import RequestError
from schemas.pictures import decode_rgb

IGNORED = -100
"""Label of a token that is not to be learnt; the convention of transformers' losses."""


class Encoder:
    """Encodes samples as `FusionProcessor` would the rendered conversation, and says which tokens are answer.

    Args:
        max_length: tokens, visual ones included. What is longer is cut at its end; a cut never falls inside a picture:
            such a picture goes as a whole, with all that follows it.

    Raises:
        RequestError: the tokenizer cannot say where in the text a token stands.
    """

    def __init__(self, processor: FusionProcessor, template: ChatTemplate, max_length: int) -> None:
        if not processor.tokenizer.is_fast:
            raise RequestError(
                f"The tokenizer {type(processor.tokenizer).__name__} is not a fast one (no tokenizer.json), so it does "
                "not say which tokens are the answer. Convert it with transformers' AutoTokenizer and save it."
            )
        self._processor, self._template, self._max_length = processor, template, max_length
        self._image_id = processor.image_token_id

    def __call__(self, sample: Sample) -> dict[str, torch.Tensor]:
        """One row, not padded.

        Returns:
            input_ids, labels: int64 (length,); with pictures also what the image processor gives for them:
            pixel_values float32 (canvases, 3, canvas, canvas), image_sizes int64 (pictures, 2), and where the model
            takes boxes, boxes float32 (all boxes, 4) and box_counts int64 (pictures,).

        Raises:
            BadRowError: a picture is missing or does not decode, its places do not match, no answer is left.
        """
        pictures = [self._decoded(read()) for read in sample.images]
        text, answers = self._template.render(sample.messages)
        ids, labels = self._tokens(text, answers[-1:] if sample.last_answer_only else answers)
        if ids.count(self._image_id) != len(pictures):
            raise BadRowError(
                "placeholders", f"{ids.count(self._image_id)} image tokens in the text, {len(pictures)} pictures"
            )
        seen = self._images(pictures, sample) if pictures else {}
        ids, labels, whole = self._expanded(ids, labels, self._counts(pictures, seen))
        if whole < len(pictures):  # the cut took pictures
            seen = self._images(pictures[:whole], sample) if whole else {}
        if all(label == IGNORED for label in labels[1:]):  # the first token is never predicted
            raise BadRowError("too_long", f"no token of an answer is among the first {self._max_length}")
        return {"input_ids": torch.tensor(ids), "labels": torch.tensor(labels), **seen}

    def _decoded(self, data: bytes) -> Image.Image:
        try:
            return decode_rgb(data)
        except ValueError as error:
            raise BadRowError("undecodable", str(error)) from None

    def _tokens(self, text: str, answers: Sequence[Span]) -> tuple[list[int], list[int]]:
        encoded = self._processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, labels, spans = encoded["input_ids"], [], iter(answers)
        span = next(spans, None)
        for token, (start, end) in zip(ids, encoded["offset_mapping"], strict=True):
            while span is not None and start >= span[1]:
                span = next(spans, None)
            learnt = span is not None and end > span[0] and token != self._image_id
            labels.append(token if learnt else IGNORED)
        return ids, labels

    def _images(self, pictures: list[Image.Image], sample: Sample) -> dict[str, torch.Tensor]:
        boxes = [_fractions(own, picture, sample) for own, picture in zip(_filled(sample), pictures, strict=False)]
        return dict(self._processor.image_processor.preprocess(pictures, boxes=boxes))

    def _counts(self, pictures: list[Image.Image], seen: dict[str, Any]) -> list[int]:
        boxes = seen["box_counts"].tolist() if "box_counts" in seen else [0] * len(pictures)
        return [
            self._processor.image_tokens((picture.height, picture.width), count)
            for picture, count in zip(pictures, boxes, strict=True)
        ]

    def _expanded(self, ids: list[int], labels: list[int], counts: list[int]) -> tuple[list[int], list[int], int]:
        """Each image token as often as its picture makes tokens, cut to the length; and the pictures that are left."""
        repeats, waiting = [], iter(counts)
        for token in ids:
            repeats.append(next(waiting) if token == self._image_id else 1)
        ends = list(accumulate(repeats))
        kept = sum(end <= self._max_length for end in ends)
        out_ids, out_labels, whole = [], [], 0
        for token, label, repeat in zip(ids[:kept], labels[:kept], repeats[:kept], strict=True):
            out_ids += [token] * repeat
            out_labels += [label] * repeat
            whole += token == self._image_id
        return out_ids, out_labels, whole


def _filled(sample: Sample) -> Sequence[Sequence[Sequence[float]]]:
    return sample.boxes or [[] for _ in sample.images]


def _fractions(boxes: Sequence[Sequence[float]], picture: Image.Image, sample: Sample) -> Sequence[Sequence[float]]:
    if not sample.boxes_in_pixels:
        return boxes
    width, height = picture.size
    return [[x1 / width, y1 / height, x2 / width, y2 / height] for x1, y1, x2, y2 in boxes]


class Collator:
    """Rows to a batch, padded at their ends.

    Args:
        pad: id of the padding token.
    """

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """input_ids, labels, attention_mask int64 (rows, longest); pictures of all rows one after the other."""
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        batch: dict[str, Any] = {"attention_mask": mask.long()}
        for name, value in (("input_ids", self._pad), ("labels", IGNORED)):
            batch[name] = torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], True, value)
        for name in ("pixel_values", "image_sizes", "boxes", "box_counts"):
            if found := [row[name] for row in rows if name in row]:
                batch[name] = torch.cat(found)
        return batch
