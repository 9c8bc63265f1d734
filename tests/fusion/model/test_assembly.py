"""Models made of parts, of a stock LLaVA-NeXT, and of a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    CLIPVisionModel,
    Florence2ForConditionalGeneration,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipVisionModel,
)

from benchmarks.fusion import llava
from benchmarks.fusion.tiny import (
    OPTIONS,
    convnet,
    florence,
    tiny_config,
    tiny_model,
    tiny_processor,
    tiny_tokenizer,
    vit,
)
from fusion.model.assembly import Assembled, Images, from_checkpoint, from_llava, from_parts
from fusion.model.towers import Florence
from schemas.errors import RequestError, SetupError
from schemas.section import ModelRef


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], ModelRef]:
    folder = tmp_path_factory.mktemp("saved")

    def save(name: str, make: Callable[[Path], object]) -> ModelRef:
        if not (folder / name).exists():
            torch.manual_seed(1)
            make(folder / name)
        return ModelRef(model=str(folder / name))

    return save


@pytest.fixture
def vision(saved: Any) -> ModelRef:
    return saved("vision", lambda at: CLIPVisionModel(vit()).save_pretrained(at))


@pytest.fixture
def text(saved: Any) -> ModelRef:
    return saved("text", _save_text)


def _save_text(at: Path) -> None:
    LlamaForCausalLM(tiny_config("mlp").text_config).save_pretrained(at)
    tiny_tokenizer().save_pretrained(at)


def picture(width: int = 90, height: int = 60) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def same(model: torch.nn.Module, ref: ModelRef, prefix: str = "") -> bool:
    theirs = load_file(Path(ref.model) / "model.safetensors")
    mine = model.state_dict()
    return set(mine) == {prefix + name for name in theirs} and all(
        torch.equal(mine[prefix + name], value) for name, value in theirs.items()
    )


def test_parts_keep_their_weights_and_the_connector_is_drawn_by_the_seed(vision: ModelRef, text: ModelRef) -> None:
    made = [from_parts(vision, text, connector="dci", seed=seed) for seed in (3, 3, 4)]
    for one in made:
        assert same(one.model.vision.towers.vision.model, vision) and same(one.model.language_model, text)
        assert one.model.dtype == torch.float32
    drawn = [one.model.vision.connector.projector[0].weight for one in made]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    ids = made[0].processor(text=["<image>what?"], images=[picture()], return_tensors="pt")
    assert made[0].model(**ids).logits.shape[:2] == ids["input_ids"].shape


def test_the_vision_half_of_a_whole_siglip_is_taken(saved: Any, text: ModelRef) -> None:
    ref = saved("siglip", lambda at: SiglipVisionModel(vit(siglip=True)).save_pretrained(at))
    made = from_parts(ref, text, images=Images(fit="stretch", mean=[0.5] * 3, std=[0.5] * 3))
    assert made.model.config.vision_config.model_type == "siglip_vision_model"
    assert made.processor.image_processor.image_mean == [0.5, 0.5, 0.5]
    assert made.processor.image_processor.fit == "stretch"


def test_a_detail_tower_comes_from_timm_or_from_transformers(saved: Any, vision: ModelRef, text: ModelRef) -> None:
    backbone = timm.create_model("test_convnext")
    by_timm = saved("timm", lambda at: timm.models.save_for_hf(backbone, at, safe_serialization=True))
    options = {"canvas": 128, "roi": 7}
    made = from_parts(vision, text, detail=by_timm, connector="conv_gate", connector_options=options)
    maps = made.model.eval().vision.towers.detail.maps(pixels := torch.rand(1, 3, 128, 128))
    theirs = backbone.eval().forward_intermediates(pixels, intermediates_only=True, indices=4)
    for mine, their in zip(maps, theirs, strict=True):
        assert torch.equal(mine, their)
    by_transformers = saved("detail", lambda at: made.model.vision.towers.detail.model.save_pretrained(at))
    again = from_parts(vision, text, detail=by_transformers, connector="conv_gate", connector_options=options)
    assert torch.equal(again.model.eval().vision.towers.detail.maps(pixels)[3], maps[3])
    assert again.model.config.detail_config.backbone == convnet().backbone


def test_a_tokenizer_without_image_token_gets_one_and_the_language_model_a_row(saved: Any, vision: ModelRef) -> None:
    def save(at: Path) -> None:
        bare = Tokenizer(models.BPE())
        bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        bare.train_from_iterator([], trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<s>", eos_token="</s>")
        tokenizer.save_pretrained(at)
        config = tiny_config("mlp").text_config
        config.vocab_size = len(tokenizer)
        LlamaForCausalLM(config).save_pretrained(at)

    ref = saved("bare", save)
    made = from_parts(vision, ref)
    tokenizer, rows = made.processor.tokenizer, 2 + 256
    assert made.model.config.image_token_id == tokenizer.convert_tokens_to_ids("<image>") == rows
    assert made.model.get_input_embeddings().weight.shape[0] == made.model.config.text_config.vocab_size == 320
    theirs = load_file(Path(ref.model) / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(made.model.get_input_embeddings().weight[:rows], theirs)
    assert tokenizer.pad_token == "</s>" and tokenizer.padding_side == "left"
    ids = made.processor(text=["<image>what?"], images=[picture()], return_tensors="pt")
    assert (ids["input_ids"] == rows).sum() == 16 and made.model(**ids).logits.isfinite().all()


def test_a_stock_llava_next_says_the_same_as_a_model_of_the_family(saved: Any) -> None:
    tokenizer = tiny_tokenizer()
    config = LlavaNextConfig(
        vision_config=vit(),
        text_config=tiny_config("mlp").text_config,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]],
        vision_feature_layer=-2,
    )

    def save(at: Path) -> None:
        LlavaNextForConditionalGeneration(config).save_pretrained(at)
        tokenizer.save_pretrained(at)

    ref = saved("llava_next", save)
    made = from_llava(ref)
    stock = LlavaNextForConditionalGeneration.from_pretrained(ref.model).eval()
    ids = made.processor(text=["<s>USER: <image>\nwhat? ASSISTANT:"], images=[picture(200, 60)], return_tensors="pt")
    with torch.no_grad():
        mine = made.model.eval()(**ids).logits
        theirs = stock(**{**ids, "pixel_values": ids["pixel_values"][None]}).logits
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
    with pytest.raises(RequestError, match="is a densefusion, no llava"):
        from_llava(saved("family", lambda at: _save_family(at)))


def _save_family(at: Path) -> None:
    model = tiny_model("conv_gate")
    model.save_pretrained(at)
    tiny_processor(model.config).save_pretrained(at)


@pytest.mark.parametrize("way", ["mlp", "siglip", "dbfusion", "llava", "checkpoint"])
def test_no_word_sees_what_comes_after_it(way: str, saved: Any, vision: ModelRef, text: ModelRef) -> None:
    """Else a training reads the answer that it is to learn; models made already know how they attend."""
    match way:
        case "mlp":
            made = from_parts(vision, text)
        case "siglip":
            ref = saved("siglip", lambda at: SiglipVisionModel(vit(siglip=True)).save_pretrained(at))
            made = from_parts(ref, text, connector="sci", connector_options={"layers": [1, 2]})
        case "dbfusion":
            ref = saved("florence", lambda at: Florence2ForConditionalGeneration(florence()).save_pretrained(at))
            made = from_parts(ref, text, connector="dbfusion", connector_options=OPTIONS["dbfusion"])
        case "llava":
            made = from_llava(saved("llava", llava.make))
        case "checkpoint":
            made = from_checkpoint(saved("family", _save_family))
    ids = dict(made.processor(text=["<image>" + "what is this? " * 6], images=[picture()], return_tensors="pt"))
    ids["attention_mask"] = torch.ones_like(ids["input_ids"])
    other = ids["input_ids"].clone()
    other[0, -1] = 40 if int(other[0, -1]) != 40 else 41
    for training in (False, True):
        made.model.train(training)
        with torch.no_grad():
            before, after = (made.model(**{**ids, "input_ids": one}).logits[0] for one in (ids["input_ids"], other))
        assert torch.equal(before[:-1], after[:-1])
        assert not torch.equal(before[-1], after[-1])


def test_a_tower_sees_the_same_inside_a_model_as_by_itself(saved: Any, text: ModelRef) -> None:
    ref = saved("florence", lambda at: Florence2ForConditionalGeneration(florence()).save_pretrained(at))
    alone = Florence(florence(), AutoModel.from_pretrained(ref.model)).eval()
    made = from_parts(ref, text, connector="dbfusion", connector_options=OPTIONS["dbfusion"])
    inside, pixels = made.model.eval().vision.towers.vision, torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(inside.depth(pixels), alone.depth(pixels), rtol=0, atol=1e-6)
        mine, theirs = (one.breadth(one.depth(pixels), [0, 5, 2]) for one in (inside, alone))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_a_checkpoint_comes_back_with_its_processor_and_pictures_may_be_prepared_anew(saved: Any) -> None:
    ref = saved("family", _save_family)
    made: Assembled = from_checkpoint(ref, Images(fit="crop", max_boxes=3))
    reference = tiny_model("conv_gate")
    assert all(torch.equal(v, reference.state_dict()[k]) for k, v in made.model.state_dict().items())
    images = made.processor.image_processor
    assert (images.fit, images.max_boxes, images.canvas) == ("crop", 3, 128)
    assert from_checkpoint(ref).processor.image_processor.fit == "pad"


def test_what_does_not_load_is_one_paragraph(saved: Any, tmp_path: Path, vision: ModelRef, text: ModelRef) -> None:
    with pytest.raises(SetupError, match=r"model\.vision .*nowhere could not be loaded.*Set model\.vision\.model"):
        from_parts(ModelRef(model=str(tmp_path / "nowhere")), text)
    with pytest.raises(SetupError, match=r"model\.text .* could not be loaded"):
        from_parts(vision, vision)
    with pytest.raises(RequestError, match="looks through one tower"):
        from_parts(
            vision, text, detail=saved("detail", lambda at: AutoModel.from_config(convnet()).save_pretrained(at))
        )
    holed = tmp_path / "holed"
    CLIPVisionModel(vit()).save_pretrained(holed)
    weights = load_file(holed / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.fc1.weight"))
    weights.pop(name)
    save_file(weights, holed / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SetupError, match=r"it lacks weights: .*layers\.1\.mlp\.fc1\.weight"):
        from_parts(ModelRef(model=str(holed)), text)
