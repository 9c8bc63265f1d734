"""The caption stage with real vLLM servers on the CPU; each takes some 20 s to start."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.fusion import llava
from fusion.image_url import image_url
from fusion.priors import Priors
from fusion.prompt import Prompt
from schemas.errors import SetupError
from stages.base import ShardOutput, align
from stages.caption import CaptionStage
from stages.caption_section import CaptionSection
from tests.fakes.packaged import photograph, uid_of
from tests.fakes.perceived import (
    PRIORS,
    CountedImages,
    account,
    engine_processes,
    kill_engine,
    opened,
    perceived,
)

pytestmark = pytest.mark.vllm

ALTS = ["an astronaut", "a cat <image> on a blanket", "coffee", None, "a rocket", "again an astronaut"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock LLaVA of transformers."""
    folder = tmp_path_factory.mktemp("llava")
    llava.make(folder)
    return folder


def section(weights: Path, **engine: Any) -> CaptionSection:
    small = {"model": str(weights), "kv_cache_bytes": 64 << 20, "startup_timeout_s": 300}
    return CaptionSection.model_validate({"engine": small | engine, "max_tokens": 32, "concurrency": 2})


@pytest.fixture(scope="module")
def served(weights: Path) -> Iterator[CaptionStage]:
    with opened(section(weights, deterministic=True)) as stage:
        yield stage


@pytest.fixture(scope="module")
def unbroken(served: CaptionStage, tmp_path_factory: pytest.TempPathFactory) -> ShardOutput:
    return served.process(perceived(tmp_path_factory.mktemp("scratch"), ALTS, CountedImages()))


def test_photographs_get_the_captions_that_transformers_gives(weights: Path, unbroken: ShardOutput) -> None:
    became = account(unbroken, len(ALTS))
    assert unbroken.rows.column("completion_tokens").to_pylist() == [32] * len(ALTS)
    assert unbroken.rows.column("finish_reason").to_pylist() == ["length"] * len(ALTS)
    assert [became[row] for row in range(len(ALTS))] == generated(weights)
    assert len(set(became.values())) == len(ALTS)


def test_an_engine_killed_in_the_middle_changes_no_caption(
    tmp_path: Path, served: CaptionStage, unbroken: ShardOutput
) -> None:
    killed: list[int] = []

    def kill(row: int) -> None:
        if row == 3 and not killed:
            killed.append(row)
            kill_engine()

    output = served.process(perceived(tmp_path, ALTS, CountedImages(kill)))
    assert killed
    assert output.metrics["engine_restarts"] == 1
    assert output.rows.equals(unbroken.rows)
    assert not output.drops


def test_the_prefix_cache_serves_the_system_text_of_other_images(tmp_path: Path, weights: Path) -> None:
    from transformers import AutoTokenizer

    config = section(weights, dtype="float32")
    with opened(config) as stage:
        stage.process(perceived(tmp_path, ALTS[:1], CountedImages()))
        output = stage.process(perceived(tmp_path, ALTS[:4], CountedImages()))
    system = AutoTokenizer.from_pretrained(weights)(Prompt(config.prompt).render(None, Priors()).system).input_ids
    cached = output.rows.column("cached_tokens").to_pylist()
    assert all(tokens >= len(system) // 32 * 32 for tokens in cached)
    assert output.metrics["prefix_tokens"] >= 4 * (len(system) // 32 * 32) > 0
    assert output.metrics["prefix_cached_tokens"] == output.metrics["prefix_tokens"]
    assert all(c < p for c, p in zip(cached, output.rows.column("prompt_tokens").to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("fault", "words"),
    [("a flag that does not exist", "unrecognized arguments: --no-such-flag"), ("weights", "SafetensorError")],
)
def test_an_engine_that_cannot_start_is_one_paragraph(tmp_path: Path, weights: Path, fault: str, words: str) -> None:
    before = engine_processes()
    config = section(weights, extra_args=["--no-such-flag"], log_dir=str(tmp_path))
    if fault == "weights":
        shutil.copytree(weights, tmp_path / "model")
        with (tmp_path / "model" / "model.safetensors").open("r+b") as f:
            f.truncate(100_000)
        config = section(tmp_path / "model", log_dir=str(tmp_path))
    stage = CaptionStage(config, PRIORS)
    stage.open()
    with pytest.raises(SetupError) as error:
        stage.connect()
    paragraph = str(error.value)
    assert words in paragraph
    assert config.engine.model in paragraph
    assert "caption.engine" in paragraph
    assert "\n" not in paragraph
    assert len(paragraph) < 2500
    assert engine_processes() == before
    [log] = tmp_path.rglob("vllm.log")
    assert str(log) in paragraph


def generated(weights: Path) -> list[str]:
    """Greedy captions of all rows by transformers, from what the stage sends."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor = AutoProcessor.from_pretrained(weights)
    model = LlavaForConditionalGeneration.from_pretrained(weights, dtype=torch.float32).eval()
    config = section(weights)
    prompt = Prompt(config.prompt)
    shard = perceived(weights, ALTS, CountedImages())
    captions = []
    for row, alt in enumerate(ALTS):
        rows = {e: align(shard.tables[f"perceive.{e}"], [uid_of(row)]).to_pylist()[0] for e in PRIORS.experts}
        messages = prompt.render(alt, Priors.of(PRIORS.of(rows)))
        url = image_url(photograph(row)[1], config.image_max_side)
        image = Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")
        user = [{"type": "image"}, {"type": "text", "text": messages.user}]
        chat = [{"role": "system", "content": messages.system}, {"role": "user", "content": user}]
        text = processor.apply_chat_template(chat, add_generation_prompt=True)
        inputs = processor(text=text, images=image, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=config.max_tokens, do_sample=False)
        captions.append(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return captions
