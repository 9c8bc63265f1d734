"""Fusion models and a stock LLaVA-NeXT behind vLLM: what transformers says greedily is what is served."""

import base64
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from benchmarks.fusion.llava import CHAT_TEMPLATE, _rename_tower, _speakable, _spread
from benchmarks.fusion.serving import CASES, Case, cases
from benchmarks.fusion.tiny import PATCH, SIDE, tiny_model, tiny_processor, tiny_tokenizer, vit
from fusion.engine import Answer, ChatClient, EngineSection, Failure, Question, SamplingSection
from fusion.engine.endpoints import Endpoint
from fusion.engine.server import VLLMServer
from fusion.model import register

pytestmark = pytest.mark.vllm

TOKENS = 24
TEXT = "What stands beside the object?"


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, Any]]:
    """What the benchmark prints, by connector: all engines in one process."""
    command = [sys.executable, "-m", "benchmarks.fusion.serving", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return {row["connector"]: row for row in json.loads(done.stdout)["connectors"]}


@pytest.mark.parametrize("case", CASES)
def test_greedy_answers_are_those_of_transformers(table: dict[str, dict[str, Any]], case: str) -> None:
    row = table[case]
    assert (row["identical"], row["distinct"], row["prompts"], row["tokens"]) == (8, 8, 8, 48)
    assert row["max_logprob_difference"] < 1e-3


class Served:
    """A checkpoint, its server, and what transformers makes of the same requests."""

    def __init__(self, folder: Path, model: Any, processor: Any) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        register()
        # As the engine loads it: transformers may choose another resampling backend than the one that was saved.
        self.model, self.processor = model.eval(), AutoProcessor.from_pretrained(folder)
        # Two pictures, which is more than the caption stage asks about at once.
        extra = ["--limit-mm-per-prompt", '{"image": 2}']
        section = EngineSection(
            model=str(folder), dtype="float32", max_model_len=2048, kv_cache_bytes=64 << 20, extra_args=extra
        )
        self.server = VLLMServer(section, "cpu")

    def ask(self, asked: list[Question]) -> list[Answer | Failure]:
        client = ChatClient(
            [Endpoint(self.server.base_url, self.server.api_key)],
            self.server.section.request_model,
            SamplingSection(max_tokens=TOKENS),
            concurrency=8,
            timeout_s=120,
            retries=0,
        )
        return client.ask([lambda one=one: one for one in asked])  # type: ignore[misc]

    def wanted(self, pictures: list[Image.Image], **boxes: Any) -> str:
        """Greedy words by transformers about pictures that stand before the text."""
        chat = [{"role": "user", "content": [*({"type": "image"} for _ in pictures), {"type": "text", "text": TEXT}]}]
        prompt = self.processor.apply_chat_template(chat, add_generation_prompt=True)
        inputs = self.processor(text=prompt, images=pictures, return_tensors="pt", add_special_tokens=False, **boxes)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        return self.processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def content(pictures: list[Image.Image], text: str = TEXT) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for picture in pictures:
        png = io.BytesIO()
        picture.save(png, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def texts(answers: list[Answer | Failure]) -> list[str]:
    return [answer.text if isinstance(answer, Answer) else answer.detail for answer in answers]


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The model whose connector looks at boxes."""
    model = tiny_model("conv_gate")
    served = Served(tmp_path_factory.mktemp("conv_gate"), model, tiny_processor(model.config))
    try:
        served.server.start()
        yield served
    finally:
        served.server.stop()


@pytest.fixture(scope="module")
def rows() -> list[Case]:
    return cases(8, boxes=True)


def test_served_answers_follow_the_boxes_of_each_request(looked: Served, rows: list[Case]) -> None:
    """The second time the same pictures come with other boxes, which no cache may pass over."""
    given = [[row.boxes or [] for row in rows], [[[0.25, 0.25, 0.5, 0.75]] for _ in rows]]
    said = []
    for boxes in given:
        asked = [Question(content([row.picture]), own) for row, own in zip(rows, boxes, strict=True)]
        said.append(texts(looked.ask(asked)))
        assert said[-1] == [looked.wanted([row.picture], boxes=[own]) for row, own in zip(rows, boxes, strict=True)]
    assert all(one != other for one, other in zip(*said, strict=True))


def test_a_request_without_boxes_is_one_with_none(looked: Served, rows: list[Case]) -> None:
    picture = [rows[0].picture]
    without, none = texts(looked.ask([Question(content(picture), boxes) for boxes in (None, [])]))
    assert without == none == looked.wanted(picture)


def test_two_pictures_have_each_their_own_boxes(looked: Served, rows: list[Case]) -> None:
    """The same picture twice with other boxes, then one that is known beside one that is new."""
    first, second = rows[1].picture, rows[2].picture
    for pictures, boxes in (
        ([first, first], [[[0.0, 0.0, 0.5, 0.5]], [[0.5, 0.5, 1.0, 1.0], [0.1, 0.1, 0.9, 0.9]]]),
        ([second, first], [[[0.2, 0.3, 0.8, 0.9]], [[0.0, 0.0, 0.5, 0.5]]]),
    ):
        assert asked_of_both(looked, pictures, boxes) == looked.wanted(pictures, boxes=boxes)


def asked_of_both(looked: Served, pictures: list[Image.Image], boxes: list[list[list[float]]]) -> str:
    from openai import OpenAI

    with OpenAI(base_url=looked.server.base_url, api_key=looked.server.api_key, max_retries=0) as client:
        answer = client.chat.completions.create(
            model=looked.server.section.request_model,
            messages=content(pictures),  # type: ignore[arg-type]
            max_tokens=TOKENS,
            temperature=0,
            extra_body={"mm_processor_kwargs": {"boxes": boxes}},
        )
    return answer.choices[0].message.content or ""


def test_a_wrong_request_fails_alone_in_plain_words(looked: Served, rows: list[Case]) -> None:
    picture = [rows[0].picture]
    wrong = [
        Question(content(picture), [[0.0, 0.0, 1.0]]),
        Question(content(picture, f"{TEXT} <image>")),
        Question(content(picture)),
    ]
    bad_boxes, bad_text, good = looked.ask(wrong)
    assert isinstance(bad_boxes, Failure) and bad_boxes.own and "four finite numbers" in bad_boxes.detail
    assert isinstance(bad_text, Failure) and bad_text.own and "2 image tokens" in bad_text.detail
    assert isinstance(good, Answer)


def test_a_stock_llava_next_is_served_and_answers_as_any_model(tmp_path: Path, rows: list[Case]) -> None:
    model, processor = stock_llava_next()
    served = Served(tmp_path, model, processor)
    _rename_tower(tmp_path / "model.safetensors")
    try:
        served.server.start()
        said = texts(served.ask([Question(content([row.picture])) for row in rows]))
    finally:
        served.server.stop()
    assert said == [served.wanted([row.picture]) for row in rows]
    assert len(set(said)) == len(rows)


def stock_llava_next() -> tuple[Any, Any]:
    """LLaVA-NeXT of transformers with random weights, as spread as those of our small models."""
    ours = tiny_model("mlp").config
    grid = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
    config = LlavaNextConfig(
        vision_config=vit(),
        text_config=ours.text_config,
        image_token_index=ours.image_token_id,
        image_grid_pinpoints=grid,
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config)
    _spread(model, _speakable(tiny_tokenizer()))
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=grid
    )
    return model, LlavaNextProcessor(
        images,
        tiny_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
