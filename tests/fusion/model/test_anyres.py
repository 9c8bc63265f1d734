"""AnyRes against transformers' LLaVA-NeXT with the same weights: counts, joined features, logits."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from benchmarks.fusion.tiny import PATCH, SIDE, tiny_config, tiny_model, tiny_processor, tiny_tokenizer
from fusion.model.anyres import best_size, canvases, joined, token_count
from fusion.model.connectors import CONNECTORS
from fusion.model.modeling import FusionForConditionalGeneration
from schemas.errors import RequestError

GRID = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE], [3 * SIDE, SIDE], [SIDE, 3 * SIDE]]
"""As llava-v1.6-vicuna-7b has it, of smaller tiles."""
EDGES = (20, 55, 56, 57, 99, 112, 113, 150, 336, 400)
SIZES = list(itertools.product(EDGES, EDGES))


@pytest.fixture(scope="module")
def ours() -> FusionForConditionalGeneration:
    model = tiny_model("mlp", anyres=True)
    model.config.image_grid_pinpoints = GRID
    return model


@pytest.fixture(scope="module")
def theirs(ours: FusionForConditionalGeneration) -> LlavaNextForConditionalGeneration:
    """LLaVA-NeXT with our weights."""
    config = LlavaNextConfig(
        vision_config=ours.config.vision_config,
        text_config=ours.config.text_config,
        image_token_index=ours.config.image_token_id,
        image_grid_pinpoints=GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
    )
    model = LlavaNextForConditionalGeneration(config).eval()
    names = {
        "model.image_newline": "vision.image_newline",
        "model.vision_tower.": "vision.towers.vision.model.",
        "model.multi_modal_projector.linear_1.": "vision.connector.projector.0.",
        "model.multi_modal_projector.linear_2.": "vision.connector.projector.2.",
        "model.language_model.": "language_model.model.",
        "lm_head.": "language_model.lm_head.",
    }
    weights = ours.state_dict()
    mapped = {}
    for name in model.state_dict():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        mapped[name] = weights[names[prefix] + name.removeprefix(prefix)]
    model.load_state_dict(mapped)
    return model


@pytest.fixture(scope="module")
def their_processor() -> LlavaNextProcessor:
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=GRID
    )
    return LlavaNextProcessor(
        images,
        tiny_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.RandomState(sum(size)).randint(0, 256, (*size, 3), dtype=np.uint8))


def test_counts_are_those_of_llava_next(
    ours: FusionForConditionalGeneration, their_processor: LlavaNextProcessor
) -> None:
    processor = tiny_processor(ours.config)
    wanted = their_processor._get_num_multimodal_tokens(image_sizes=SIZES)["num_image_tokens"]
    assert [processor.image_tokens(size) for size in SIZES] == wanted
    assert [processor.canvases(size) for size in SIZES] == [
        image_size_to_num_patches(size, GRID, SIDE) for size in SIZES
    ]
    assert len(set(wanted)) == 15
    full = processor._get_num_multimodal_tokens(image_sizes=SIZES)
    assert full["num_image_tokens"] == wanted


def test_the_size_with_most_tokens_has_as_many_as_any(ours: FusionForConditionalGeneration) -> None:
    processor = tiny_processor(ours.config)
    most = processor.image_tokens(processor.largest_size())
    assert most == max(processor.image_tokens(size) for size in [*SIZES, (224, 224), (2000, 2000), (1680, 560)])


@pytest.mark.parametrize(
    "size",
    [(56, 112), (112, 56), (112, 112), (60, 90), (150, 40), (40, 150), (99, 113), (336, 400), (20, 55), (20, 400)],
)
def test_features_and_logits_are_those_of_llava_next(
    ours: FusionForConditionalGeneration,
    theirs: LlavaNextForConditionalGeneration,
    their_processor: LlavaNextProcessor,
    size: tuple[int, int],
) -> None:
    text = "<s>USER: <image>\nhello ASSISTANT:"
    one = tiny_processor(ours.config)(text=text, images=picture(size), return_tensors="pt")
    other = their_processor(text=text, images=picture(size), return_tensors="pt")
    assert torch.equal(one["input_ids"], other["input_ids"])
    with torch.inference_mode():
        [mine] = ours.vision(one["pixel_values"], one["image_sizes"])
        features = theirs.model.get_image_features(other["pixel_values"], other["image_sizes"]).pooler_output
        torch.testing.assert_close(mine, features[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(ours(**one).logits, theirs(**other).logits, rtol=0, atol=1e-3)
        assert torch.equal(
            ours.generate(**one, max_new_tokens=12, do_sample=False),
            theirs.generate(**other, max_new_tokens=12, do_sample=False),
        )


def test_pictures_of_different_sizes_in_one_batch_are_each_as_alone(ours: FusionForConditionalGeneration) -> None:
    pictures = [picture(size) for size in ((60, 90), (150, 40), (112, 112))]
    processor = tiny_processor(ours.config)
    together = processor(images=pictures, return_tensors="pt")
    with torch.inference_mode():
        found = ours.vision(together["pixel_values"], together["image_sizes"])
        for features, image in zip(found, pictures, strict=True):
            alone = processor(images=image, return_tensors="pt")
            torch.testing.assert_close(features, ours.vision(**alone)[0], rtol=0, atol=1e-4)


edges = st.integers(1, 4000)


@given(size=st.tuples(edges, edges))
def test_the_chosen_size_is_that_of_transformers_wherever_it_chooses(size: tuple[int, int]) -> None:
    # Of a sliver that no grid holds a pixel of, transformers chooses nothing and fails.
    assert best_size(size, GRID) == (select_best_resolution(size, GRID) or best_size(size, GRID))


@given(size=st.tuples(edges, edges))
def test_as_many_tokens_are_counted_as_are_joined(ours: FusionForConditionalGeneration, size: tuple[int, int]) -> None:
    features = [torch.zeros(16, 1)] * canvases(size, ours.config)
    [tokens] = joined(features, [size], ours.config, torch.zeros(1))
    assert len(tokens) == token_count(size, ours.config)


def test_a_grid_that_cannot_be_is_refused_when_the_model_is_made() -> None:
    config = tiny_config("mlp")
    for point in ([SIDE, SIDE + 1], [SIDE // 2, SIDE], [SIDE], [0, SIDE]):
        config.image_grid_pinpoints = [[SIDE, SIDE], point]
        with pytest.raises(RequestError, match=rf"\[{point[0]}.* in whole canvases of {SIDE} pixels"):
            FusionForConditionalGeneration(config)


@pytest.mark.parametrize("connector", [name for name, kind in CONNECTORS.items() if not kind.gridded])
def test_a_connector_whose_tokens_are_no_grid_takes_no_tiles(connector: str) -> None:
    with pytest.raises(RequestError, match=f"the connector {connector} are no grid"):
        FusionForConditionalGeneration(tiny_config(connector, anyres=True))


def test_rows_end_in_a_newline_that_starts_at_random_and_survives_saving(tmp_path):
    model = tiny_model("mlp", anyres=True)
    fresh = FusionForConditionalGeneration(model.config).vision.image_newline
    assert 0.5 < fresh.std() * len(fresh) ** 0.5 < 1.5
    model.save_pretrained(tmp_path)
    loaded = FusionForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.vision.image_newline, model.vision.image_newline)
