"""The model that training starts from: the tower is the trained one, and the family's classes load it."""

from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from demo.captioner.start import Shape, captioner, make_start
from demo.captioner.tokenizer import make_tokenizer
from demo.scene import render
from demo.split import seeds
from demo.weights import TRAINED
from fusion.model import register


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    make_start(folder, Shape(layers=1))
    register()
    return folder


def test_the_tower_sees_what_open_clips_sees(start: Path) -> None:
    model, processor = AutoModelForImageTextToText.from_pretrained(start).eval(), AutoProcessor.from_pretrained(start)
    clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{TRAINED / 'clip'}")
    picture = render(seeds("validation", 1)[0]).image
    pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    assert (pixels - transform(picture)).abs().max() < 0.05  # Pillow resizes bytes, open_clip's transform does, too
    with torch.inference_mode():
        tower = model.vision.towers.vision
        state = tower.model.post_layernorm(tower.model(pixels).last_hidden_state[:, 1:])
        clip.visual.output_tokens = True
        _, tokens = clip.eval().visual(pixels)
    assert torch.allclose(state, tokens, atol=1e-4)


def test_it_reads_a_prompt_and_says_something(start: Path) -> None:
    model, processor = AutoModelForImageTextToText.from_pretrained(start).eval(), AutoProcessor.from_pretrained(start)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Describe the image."}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(
        text=text, images=Image.new("RGB", (200, 100), "red"), return_tensors="pt", add_special_tokens=False
    )
    assert inputs["input_ids"].shape == (1, 100 + 4)
    with torch.inference_mode():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=3)
        tokens = model.vision(inputs["pixel_values"])[0]
    assert ids.shape[1] <= 107
    assert 0.1 < float(tokens.std()) < 2


def test_the_same_seed_gives_the_same_model(start: Path, tmp_path: Path) -> None:
    make_start(tmp_path, Shape(layers=1))
    first, second = (AutoModelForImageTextToText.from_pretrained(folder).state_dict() for folder in (start, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_numbers_of_boxes_start_as_smooth_curves(start: Path) -> None:
    model, processor = AutoModelForImageTextToText.from_pretrained(start), AutoProcessor.from_pretrained(start)
    table = model.get_input_embeddings().weight.detach()
    near, far = (
        float(torch.cosine_similarity(*table[processor.tokenizer.convert_tokens_to_ids(pair)], dim=0))
        for pair in (["0.372", "0.373"], ["0.372", "0.772"])
    )
    assert near > 0.98 > 0.6 > abs(far)


def test_it_is_within_ten_million_parameters() -> None:
    model, _ = captioner(make_tokenizer())
    assert sum(one.numel() for one in model.parameters()) < 10e6
