"""Grounding DINO and MM-Grounding-DINO with a few thousand weights, seeded random ones, and a tokenizer of letters."""

import string
from pathlib import Path
from typing import Any

import torch

WORDS = ["car", "tree", "cone", "sign", "robot", "ball", "traffic", "light", "dog", "red", "kite"]
MOST_TOKENS = 40
QUERIES = 30


def tokenizer() -> Any:
    """BERT's word pieces over single letters and WORDS. The model knows separators by these ids."""
    from transformers import BertTokenizer

    vocabulary = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    vocabulary |= {piece: 200 + i for i, piece in enumerate([*letters, *WORDS, ",", "-"])}
    return BertTokenizer(vocab=vocabulary, model_max_length=512)


def make(folder: Path, mm: bool) -> Path:
    """Save such a model, with its processor, into the folder."""
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        MMGroundingDinoConfig,
        MMGroundingDinoForObjectDetection,
        SwinConfig,
    )

    config, model = (
        (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection)
        if mm
        else (GroundingDinoConfig, GroundingDinoForObjectDetection)
    )
    backbone = SwinConfig(
        image_size=64,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = BertConfig(
        vocab_size=1100,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    sizes = {f"{part}_layers": 2 for part in ("encoder", "decoder")} | {
        f"{part}_ffn_dim": 32 for part in ("encoder", "decoder")
    }
    heads = {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
    torch.manual_seed(0)
    made = model(
        config(
            backbone_config=backbone,
            text_config=text,
            d_model=32,
            num_queries=QUERIES,
            max_text_len=MOST_TOKENS,
            **sizes,
            **heads,
        )
    )
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape) * 0.05)
        if mm:
            for head in made.class_embed:
                head.bias.fill_(-0.5)
    made.save_pretrained(folder)
    size = {"shortest_edge": 80, "longest_edge": 128}
    GroundingDinoProcessor(GroundingDinoImageProcessor(size=size), tokenizer()).save_pretrained(folder)
    return folder
