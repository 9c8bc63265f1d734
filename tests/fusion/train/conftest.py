"""Parts that are small enough to train in seconds, as folders that transformers wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPModel,
    CLIPTextConfig,
    Florence2ForConditionalGeneration,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    TimmBackbone,
)
from transformers.models.clip.configuration_clip import CLIPConfig

from benchmarks.fusion.tiny import convnet, florence, tiny_config, tiny_model, tiny_processor, tiny_tokenizer, vit

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (30, 50, 220), "white": (245, 245, 245)}


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Folder of a part: clip, florence, detail, text, or of a whole model by its connector's name."""
    folder = tmp_path_factory.mktemp("parts")
    makers: dict[str, Callable[[Path], object]] = {
        "clip": _save_clip,
        "florence": lambda at: Florence2ForConditionalGeneration(florence()).save_pretrained(at),
        "detail": lambda at: TimmBackbone(convnet()).save_pretrained(at),
        "text": _save_text,
        "llava_next": _save_llava_next,
    }

    def part(name: str) -> str:
        at = folder / name
        if not at.exists():
            torch.manual_seed(0)
            makers.get(name, lambda at: _save_whole(name, at))(at)
        return str(at)

    return part


def _save_clip(at: Path) -> None:
    """A whole CLIP, as the published towers come."""
    text = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vit().to_dict(), projection_dim=16)
    CLIPModel(config).save_pretrained(at)
    (at / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3}))


def _save_text(at: Path) -> None:
    config = tiny_config("mlp").text_config
    config.max_position_embeddings = 4096
    LlamaForCausalLM(config).save_pretrained(at)
    tiny_tokenizer().save_pretrained(at)


def _save_llava_next(at: Path) -> None:
    """A LLaVA-NeXT of transformers, with tiles of one canvas."""
    tokenizer, text = tiny_tokenizer(), tiny_config("mlp").text_config
    text.max_position_embeddings = 4096
    config = LlavaNextConfig(
        vision_config=vit(),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    LlavaNextForConditionalGeneration(config).save_pretrained(at)
    tokenizer.save_pretrained(at)


def _save_whole(connector: str, at: Path) -> None:
    model = tiny_model(connector)
    model.config.text_config.max_position_embeddings = 4096
    model.save_pretrained(at)
    tiny_processor(model.config).save_pretrained(at)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with pictures of one colour each, of different shapes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (50 + 20 * number, 90 - 15 * number), colour).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    """A LLaVA file: a row for each picture, and one of text alone."""
    rows: list[dict[str, Any]] = [
        {
            "id": name,
            "image": f"{name}.png",
            "conversations": [
                {"from": "human", "value": "Which colour?\n<image>"},
                {"from": "gpt", "value": f"The wall is {name}."},
            ],
        }
        for name in COLOURS
    ]
    rows.append(
        {"id": 7, "conversations": [{"from": "human", "value": "Say house."}, {"from": "gpt", "value": "house"}]}
    )
    path = tmp_path / "conversations.json"
    path.write_text(json.dumps(rows, indent=1))
    return path
