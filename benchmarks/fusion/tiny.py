"""A fusion model of each connector, as small as its parts allow: seeded random weights, the demo's tokenizer."""

import functools
from typing import Any

import torch
from transformers import (
    BartConfig,
    CLIPVisionConfig,
    Florence2Config,
    LlamaConfig,
    SiglipVisionConfig,
    TimmBackboneConfig,
)

from benchmarks.fusion.llava import CHAT_TEMPLATE, IMAGE, _speakable, _tokenizer
from fusion.model.configuration import FusionConfig
from fusion.model.connectors import connector_of
from fusion.model.modeling import FusionForConditionalGeneration
from fusion.model.processing import FusionProcessor

CONNECTORS = ("mlp", "s2", "sti", "sci", "dci", "conv_gate", "dbfusion")
SIDE, PATCH = 56, 14
"""Of the CLIP tower, px: a grid of 4 x 4."""
LAYERS = (1, 2)
"""For Dense Connector, of hidden states 0 to 4 (SigLIP: 5)."""
CANVAS = 128
"""For the two designs whose towers step by 32 px: a grid of 4 x 4 too."""
PROMPTS = ((0, 5, 7, 9, 2, 1), (0, 6, 8, 2, 1, 1), (0, 4, 3, 10, 11, 2))
"""Ids of the small Florence-2's vocabulary, padded by 1."""

OPTIONS: dict[str, dict[str, Any]] = {
    "sti": {"layers": LAYERS, "pool": 3},
    "sci": {"layers": LAYERS},
    "conv_gate": {"canvas": CANVAS, "roi": 7},
    "dbfusion": {"canvas": CANVAS, "prompts": PROMPTS},
}


def tiny_config(connector: str, anyres: bool = False, siglip: bool = False) -> FusionConfig:
    """The configuration of a model below 1 M parameters.

    Args:
        anyres: with tiles of one canvas, two beside or above each other, and two by two.
        siglip: a SigLIP tower instead of CLIP.
    """
    tokenizer = tiny_tokenizer()
    config = FusionConfig(
        vision_config=florence() if connector == "dbfusion" else vit(siglip),
        detail_config=convnet() if connector == "conv_gate" else None,
        # Head sizes that vLLM's attention for CPUs knows: 32 and its multiples.
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=2048,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        ),
        connector=connector,
        connector_options=OPTIONS.get(connector),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    if anyres:
        side = connector_of(connector).canvas(config)
        config.image_grid_pinpoints = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side]]
    return config


def vit(siglip: bool = False) -> CLIPVisionConfig | SiglipVisionConfig:
    """A tower with a grid of 4 x 4, as deep as `dci` needs it: hidden states 0 to 3 are averaged of both kinds."""
    kind = SiglipVisionConfig if siglip else CLIPVisionConfig
    return kind(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=5 if siglip else 4,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )


def convnet() -> TimmBackboneConfig:
    """A ConvNeXt with stages of 24, 32, 48 and 64 channels."""
    return TimmBackboneConfig(backbone="test_convnext", out_indices=[0, 1, 2, 3])


def florence() -> Florence2Config:
    """A Florence-2 with a vocabulary of 16 tokens."""
    return Florence2Config(
        vision_config={
            "embed_dim": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "num_groups": [1, 1, 2, 2],
            "window_size": 4,
            "mlp_ratio": 2.0,
            "projection_dim": 32,
            "drop_path_rate": 0.0,
        },
        text_config=BartConfig(
            vocab_size=16,
            d_model=32,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            dropout=0.0,
        ).to_dict(),
        image_token_id=15,
    )


def tiny_model(
    connector: str, seed: int = 0, anyres: bool = False, siglip: bool = False
) -> FusionForConditionalGeneration:
    """A model whose picture and prompt decide its greedy words, and which is not silent; float32, to be used as is."""
    config = tiny_config(connector, anyres, siglip)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FusionForConditionalGeneration(config).eval()
        _spread(model, _speakable(tiny_tokenizer()))
    return model


@functools.cache
def tiny_tokenizer() -> Any:
    """That of the demo's random LLaVA."""
    return _tokenizer()


def tiny_processor(config: FusionConfig) -> FusionProcessor:
    """The processor of a model with that configuration, with the demo's chat template."""
    return FusionProcessor.of_model(config, tiny_tokenizer(), chat_template=CHAT_TEMPLATE)


def _spread(model: FusionForConditionalGeneration, speakable: list[int]) -> None:
    """Weights large enough that two logits rarely tie; nothing is left at zero, what is published as zero included.

    Tokens that are no English word have a logit of 0 for ever, and some word is always above that.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5)
            elif name.endswith(("gamma", "image_newline")):
                parameter.normal_(0, 1)
        head = model.language_model.lm_head.weight
        spoken = head[speakable] * 3
        head.zero_()
        head[speakable] = spoken
