"""The processor: image tokens as many as the model makes of a picture, clear refusals, and a round trip to disk."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from benchmarks.fusion.tiny import tiny_config, tiny_model, tiny_processor
from fusion.model import register
from fusion.model.configuration import FusionConfig
from fusion.model.modeling import FusionForConditionalGeneration
from fusion.model.processing import FusionProcessor


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("anyres", [False, True])
def test_model_and_processor_come_back_from_disk_by_the_auto_classes(tmp_path: Path, anyres: bool) -> None:
    register()
    register()
    model = tiny_model("mlp", anyres=anyres)
    model.save_pretrained(tmp_path)
    tiny_processor(model.config).save_pretrained(tmp_path)

    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, FusionConfig)
    assert config.to_diff_dict() == model.config.to_diff_dict()
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, FusionProcessor)
    assert processor.chat_template == tiny_processor(model.config).chat_template
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert isinstance(again, FusionForConditionalGeneration)
    pictures = [picture(60, 90), picture(90, 60)]
    inputs = processor(text=["<image> a", "b <image>"], images=pictures, padding=True, return_tensors="pt")
    with torch.inference_mode():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)


def test_the_chat_template_puts_one_picture_where_the_message_has_it() -> None:
    model = tiny_model("mlp")
    processor = tiny_processor(model.config)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
    inputs = processor(text=processor.apply_chat_template(chat), images=picture(9, 9), return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16


@pytest.mark.parametrize(
    ("text", "pictures"), [("no place", 1), ("<image>", 0), ("<image> <image>", 1), (["<image>", "<image>"], 3)]
)
def test_image_tokens_and_pictures_that_do_not_match_are_refused(text: str | list[str], pictures: int) -> None:
    processor = tiny_processor(tiny_config("mlp"))
    asked = "".join(text).count("<image>")
    with pytest.raises(ValueError, match=rf"{asked} image tokens \(<image>\) and there are {pictures} pictures"):
        processor(text=text, images=[picture(9, 9)] * pictures or None)


def test_a_text_that_is_cut_inside_of_a_picture_is_refused() -> None:
    model = tiny_model("mlp")
    processor = tiny_processor(model.config)
    with pytest.raises(ValueError, match="truncation"):
        processor(text="<image> a", images=picture(9, 9), truncation=True, max_length=10, return_tensors="pt")
    inputs = processor(text="<image> a", images=picture(9, 9), return_tensors="pt")
    with pytest.raises(ValueError, match="9 image tokens, the pictures make 16"):
        model(input_ids=inputs["input_ids"][:, :9], pixel_values=inputs["pixel_values"])


def test_text_and_pictures_may_come_alone() -> None:
    processor = tiny_processor(tiny_config("mlp"))
    assert set(processor(text="just words")) == {"input_ids", "attention_mask"}
    assert set(processor(images=picture(9, 9))) == {"pixel_values", "image_sizes"}


def test_tied_embeddings_are_known_where_vllm_looks_for_them() -> None:
    config = tiny_config("mlp")
    assert config.tie_word_embeddings is False
    text = config.text_config.to_dict() | {"tie_word_embeddings": True}
    assert FusionConfig(text_config=text).tie_word_embeddings is True


def test_the_plugin_costs_a_process_of_vllm_nothing_before_it_is_called() -> None:
    """vLLM loads it in every process of every model."""
    heavy = "{'torch', 'transformers', 'vllm', 'PIL', 'numpy'} & set(sys.modules)"
    load = "next(iter(entry_points(group='vllm.general_plugins', name='densefusion'))).load()"
    code = f"import sys; from importlib.metadata import entry_points; {load}; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
