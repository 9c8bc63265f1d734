"""The captioner before its training: the demo's trained CLIP tower, a fresh connector, a fresh small Llama.

Three things help so small a model to learn. The matrices start with the spread that layers as
narrow as these need, where the library's 0.02 lets next to nothing through. The numbers of boxes start as smooth
curves, so that what is learnt of 0.372 holds at 0.373. And the connector's first layer takes the tower's features
standardised, by a few scenes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from demo.captioner.tokenizer import IMAGE, MAX_LENGTH, NUMBERS_OF_BOXES, make_tokenizer
from demo.scene import render
from demo.split import seeds
from demo.train.pool import small_size
from demo.train.towers import ClipModel, clip_vision_model, load_clip
from demo.weights import TRAINED
from fusion.model.configuration import FusionConfig
from fusion.model.modeling import FusionForConditionalGeneration
from fusion.model.processing import FusionProcessor
from fusion.model.towers import Towers

HEAD = 32
"""Width of a head: vLLM's attention for CPUs knows 32 and its multiples."""
_COSINES = 24
"""Of each number's embedding: the finest has a period of a twelfth of the picture."""
_LOOKED_AT = 32
"""Scenes over which the tower's features are standardised."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the language model, and the tower's layer.

    Attributes:
        layer: of the tower's hidden states, that the connector `mlp` takes. The last one: the tower was told what is in
            each patch right behind it.
    """

    width: int = 192
    hidden: int = 224
    layers: int = 5
    kv_heads: int = 2
    layer: int = -1


def make_start(folder: Path, shape: Shape = Shape(), seed: int = 0) -> None:
    """Write the model and its processor, which `densefusion train` takes as `model.checkpoint`."""
    tokenizer = make_tokenizer()
    model, processor = captioner(tokenizer, shape, seed)
    _start_connector(model, processor, seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def captioner(
    tokenizer: Any, shape: Shape = Shape(), seed: int = 0
) -> tuple[FusionForConditionalGeneration, FusionProcessor]:
    """The model with its trained tower and all else fresh, float32, and its processor."""
    clip = load_clip(TRAINED / "clip")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = language_model(tokenizer, shape)
        config = FusionConfig(
            vision_config=_vision_config(clip),
            text_config=text.config,
            connector="mlp",
            connector_options={"layer": shape.layer},
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        )
        model = FusionForConditionalGeneration(config, Towers(config, vision=tower(clip)), text).eval()
    model.generation_config = text.generation_config
    processor = FusionProcessor.of_model(config, tokenizer, fit="stretch", chat_template=tokenizer.chat_template)
    return model, processor


def language_model(tokenizer: Any, shape: Shape) -> LlamaForCausalLM:
    """A fresh one for the tokenizer."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=-(-len(tokenizer) // 64) * 64,
            hidden_size=shape.width,
            intermediate_size=shape.hidden,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.width // HEAD,
            num_key_value_heads=shape.kv_heads,
            head_dim=HEAD,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, getattr(tokenizer, name))
    _start_language_model(model, tokenizer)
    return model


def tower(clip: ClipModel) -> CLIPVisionModel:
    """The demo's CLIP tower as transformers has it; float32."""
    model = CLIPVisionModel(_vision_config(clip))
    model.load_state_dict(clip_vision_model(clip.state))
    return model.eval()


def _vision_config(clip: ClipModel) -> CLIPVisionConfig:
    vision = clip.vision
    return CLIPVisionConfig(
        hidden_size=vision["width"],
        intermediate_size=4 * vision["width"],
        num_hidden_layers=vision["layers"],
        num_attention_heads=vision["width"] // vision["head_width"],
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        hidden_act="gelu",
    )


def _start_connector(model: FusionForConditionalGeneration, processor: FusionProcessor, seed: int) -> None:
    """Its projector's layers orthogonal in spread; the first one takes features as if they were standardised."""
    pictures = [render(seed, small_size(seed)).image for seed in seeds("train", _LOOKED_AT)]
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    linears = [part for part in model.vision.connector.modules() if isinstance(part, nn.Linear)]
    taken: list[Tensor] = []
    hook = linears[0].register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].detach()))
    with torch.inference_mode():
        model.vision(pixels)
    hook.remove()
    features = torch.cat([one.flatten(0, -2) for one in taken])
    mean, deviation = features.mean(0), features.std(0)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for linear in linears:
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
        linears[0].weight.div_(deviation)
        linears[0].bias.copy_(-linears[0].weight @ mean)


def _start_language_model(model: LlamaForCausalLM, tokenizer: Any) -> None:
    depth = model.config.num_hidden_layers
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) and name != "lm_head":
            narrow = (2 * depth) ** -0.5 if name.endswith(("o_proj", "down_proj")) else 1.0
            nn.init.normal_(part.weight, std=narrow * part.in_features**-0.5)
    table = model.get_input_embeddings().weight
    spread = table.shape[1] ** -0.5
    nn.init.normal_(table, std=spread)
    numbers = tokenizer.convert_tokens_to_ids(list(NUMBERS_OF_BOXES))
    with torch.no_grad():
        table[numbers] = _curves(len(numbers), table.shape[1]) * spread


def _curves(count: int, width: int) -> Tensor:
    """Smooth curves of unit spread over `count` numbers: float32 (count, width)."""
    waves = torch.outer(torch.linspace(0, 1, count), torch.pi * torch.arange(1, _COSINES + 1)).cos()
    return waves @ torch.randn(_COSINES, width) * (2 / _COSINES) ** 0.5
