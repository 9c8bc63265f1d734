import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.fusion.tiny import tiny_config, tiny_processor
from fusion.model.processing import FusionProcessor
from fusion.train.chat_template import ChatTemplate, names
from fusion.train.encoding import IGNORED, Collator, Encoder
from fusion.train.sources.base import BadRowError, Sample, image_part, message, text_part

TURNS = [
    message("user", image_part(), text_part("What is on the left?")),
    message("assistant", text_part("A red house beside the road.")),
    message("user", text_part("And here? "), image_part(), text_part("Tell me.")),
    message("assistant", text_part("Two dogs, “Rex” and one without a name.")),
]


def png(width: int, height: int) -> bytes:
    noise = np.random.default_rng(width * height).integers(0, 255, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


def sample(*sizes: tuple[int, int], turns: list[dict[str, Any]] | None = None, boxes: Any = ()) -> Sample:
    return Sample(turns or TURNS, [lambda size=size: png(*size) for size in sizes], list(boxes))


def encoder(template: str, connector: str = "mlp", anyres: bool = False) -> Encoder:
    processor = tiny_processor(tiny_config(connector, anyres=anyres))
    return Encoder(processor, ChatTemplate(template, processor.tokenizer), 4096)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("connector", "anyres"), [("mlp", False), ("mlp", True), ("conv_gate", False)])
def test_labels_are_the_answers_and_their_ends_token_by_token(name: str, connector: str, anyres: bool) -> None:
    """Two turns, two pictures that make different numbers of tokens."""
    boxes = [[[0.1, 0.1, 0.5, 0.9]], [[0, 0, 1, 1], [0.2, 0.2, 0.4, 0.4]]] if connector == "conv_gate" else []
    given = sample((60, 40), (200, 50), boxes=boxes)
    encode = encoder(name, connector, anyres)
    row = encode(given)
    processor: FusionProcessor = encode._processor
    text, spans = encode._template.render(given.messages)

    pictures = [Image.open(io.BytesIO(read())) for read in given.images]
    served = processor(text=[text], images=pictures, add_special_tokens=False, **({"boxes": boxes} if boxes else {}))
    assert row["input_ids"].tolist() == served["input_ids"][0]
    for key in ("pixel_values", "image_sizes", "boxes", "box_counts"):
        assert (key in row) == (key in served)
        if key in row:
            assert torch.equal(row[key], torch.as_tensor(np.asarray(served[key])))
    counts = (row["input_ids"] == processor.image_token_id).sum()
    assert counts == sum(processor.image_tokens((p.height, p.width), len(b)) for p, b in _both(pictures, boxes))

    learnt = row["labels"] != IGNORED
    assert torch.equal(row["labels"][learnt], row["input_ids"][learnt])
    runs = _runs(learnt.tolist())
    decode = processor.tokenizer.decode
    assert [decode(row["input_ids"][start:end]) for start, end in runs] == [text[start:end] for start, end in spans]
    assert not (learnt & (row["input_ids"] == processor.image_token_id)).any()


@pytest.mark.parametrize("name", names())
def test_an_answer_that_was_repaired_is_shown_and_not_learnt(name: str) -> None:
    encode = encoder(name)
    given = sample((60, 40), (200, 50))
    whole, last = encode(given), encode(replace(given, last_answer_only=True))
    assert torch.equal(whole["input_ids"], last["input_ids"])
    runs = _runs((last["labels"] != IGNORED).tolist())
    assert runs == _runs((whole["labels"] != IGNORED).tolist())[1:] and len(runs) == 1


def _both(pictures: list[Image.Image], boxes: list[Any]) -> list[tuple[Image.Image, Any]]:
    return list(zip(pictures, boxes or [[] for _ in pictures], strict=True))


def _runs(flags: list[bool]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff([0, *map(int, flags), 0]))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


@pytest.mark.parametrize("anyres", [False, True])
def test_a_cut_never_falls_inside_a_picture(anyres: bool) -> None:
    given = sample((60, 40), (200, 50))
    whole = encoder("vicuna_v1", anyres=anyres)(given)
    ids = whole["input_ids"].tolist()
    image = encoder("vicuna_v1")._image_id
    runs = _runs([one == image for one in ids])
    assert len(runs) == 2
    first_answer = next(i for i, label in enumerate(whole["labels"]) if label != IGNORED)
    encode = encoder("vicuna_v1", anyres=anyres)
    for length in [*range(8, len(ids), 5), *(edge for run in runs for edge in run), len(ids)]:
        cut = Encoder(encode._processor, encode._template, length)
        if length <= first_answer:
            with pytest.raises(BadRowError, match="too_long"):
                cut(given)
            continue
        row = cut(given)
        kept = len(row["input_ids"])
        inside = next((start for start, end in runs if start < length < end), None)
        assert kept == (length if inside is None else inside)
        assert row["input_ids"].tolist() == ids[:kept] and row["labels"].tolist() == whole["labels"].tolist()[:kept]
        pictures = sum(end <= kept for _, end in runs)
        assert len(row["image_sizes"]) == pictures


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (sample(), "placeholders"),
        (sample((9, 9)), "placeholders"),
        (sample((9, 9), (9, 9), (9, 9)), "placeholders"),
        (Sample(TURNS, [lambda: b"no picture", lambda: png(9, 9)]), "undecodable"),
        (Sample(TURNS, [lambda: png(90, 90)[:400], lambda: png(9, 9)]), "undecodable"),
        (
            sample(
                (9, 9),
                turns=[
                    message("user", image_part()),
                    message("assistant", text_part("an <image> in the answer")),
                ],
            ),
            "placeholders",
        ),
    ],
)
def test_what_cannot_be_learnt_from_says_why(given: Sample, reason: str) -> None:
    with pytest.raises(BadRowError) as caught:
        encoder("vicuna_v1")(given)
    assert caught.value.reason == reason


def test_boxes_in_pixels_and_as_fractions_are_the_same() -> None:
    ask = [message("user", image_part(), text_part("?")), message("assistant", text_part("x"))]
    encode = encoder("vicuna_v1", "conv_gate")
    pixels = encode(Sample(ask, [lambda: png(80, 40)], [[[8, 4, 40, 30]]], boxes_in_pixels=True))
    fractions = encode(Sample(ask, [lambda: png(80, 40)], [[[0.1, 0.1, 0.5, 0.75]]]))
    assert torch.equal(pixels["boxes"], fractions["boxes"]) and pixels["box_counts"].tolist() == [1]


def test_a_batch_is_padded_at_its_ends_and_its_pictures_follow_one_another() -> None:
    encode = encoder("plain", anyres=True)
    rows = [
        encode(sample((60, 40), turns=[message("user", image_part()), message("assistant", text_part("short"))])),
        encode(sample(turns=[message("user", text_part("q")), message("assistant", text_part("no picture here"))])),
        encode(sample((200, 50), turns=[message("user", image_part()), message("assistant", text_part("longer"))])),
    ]
    batch = Collator(pad=0)(rows)
    longest = max(len(row["input_ids"]) for row in rows)
    for name, pad in (("input_ids", 0), ("labels", IGNORED)):
        assert batch[name].shape == (3, longest)
        for row, padded in zip(rows, batch[name], strict=True):
            assert padded.tolist() == row[name].tolist() + [pad] * (longest - len(row[name]))
    assert batch["attention_mask"].sum(1).tolist() == [len(row["input_ids"]) for row in rows]
    assert batch["image_sizes"].tolist() == [[40, 60], [50, 200]]
    assert torch.equal(batch["pixel_values"], torch.cat([rows[0]["pixel_values"], rows[2]["pixel_values"]]))
    assert "pixel_values" not in Collator(pad=0)(rows[1:2])
