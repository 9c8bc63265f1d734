"""The published designs side by side: what each sees, its tokens, parameters and operations.

    python -m benchmarks.fusion.designs [--json] [--page FILE]

Full-size models are laid out without memory for their weights (torch's meta device); operations are counted by torch's
FlopCounterMode while the towers and the connector look at one picture; those of the language model while it reads the
picture's tokens follow from its shapes. One multiply-add is two operations.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    Florence2Config,
    LlamaConfig,
    SiglipVisionConfig,
    TimmBackboneConfig,
)

from fusion.model.anyres import token_count
from fusion.model.configuration import FusionConfig
from fusion.model.connectors import connector_of
from fusion.model.modeling import FusionVision


@dataclass(frozen=True)
class Design:
    """One published system.

    Attributes:
        config: builds its configuration.
        sees: what reaches the towers, in words.
        published: results, with the table that they stand in.
        boxes: object tokens counted.
    """

    name: str
    config: Callable[[], FusionConfig]
    sees: str
    published: str
    boxes: int = 0


@dataclass(frozen=True)
class Figures:
    """What is counted of a design; operations of one picture of 672 x 672 pixels.

    Attributes:
        tokens: visual tokens, those of boxes included.
        vision_gflop: of the towers and the connector, without what tokens of boxes cost.
        language_gflop: of the language model while it reads the visual tokens and nothing else.
    """

    design: str
    connector: str
    canvas: int
    tokens: int
    towers_m: float
    connector_m: float
    vision_gflop: float
    language_gflop: float


PICTURE = (672, 672)
"""Height and width in pixels; AnyRes tiles it 2 x 2."""
BOXES = 12
"""About the mean of MG-LLaVA's boxes a picture where RAM's tags are searched for (arXiv 2406.17770, its count of boxes
over 389,722 pictures)."""


def vicuna() -> LlamaConfig:
    """Vicuna-7B-v1.5."""
    return LlamaConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
    )


def clip_large() -> CLIPVisionConfig:
    """openai/clip-vit-large-patch14-336."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )


def siglip() -> SiglipVisionConfig:
    """google/siglip-so400m-patch14-384."""
    return SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    )


def convnext_large() -> TimmBackboneConfig:
    """CLIP-convnext_large_d_320 of LAION, by its name in timm."""
    return TimmBackboneConfig(backbone="convnext_large_mlp.clip_laion2b_ft_soup_320", out_indices=[0, 1, 2, 3])


def florence_large() -> Florence2Config:
    """microsoft/Florence-2-large-ft."""
    return Florence2Config(
        vision_config={
            "embed_dim": [256, 512, 1024, 2048],
            "num_heads": [8, 16, 32, 64],
            "num_groups": [8, 16, 32, 64],
            "depths": [1, 1, 9, 1],
            "projection_dim": 1024,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": 51289,
            "d_model": 1024,
            "encoder_layers": 12,
            "decoder_layers": 12,
            "encoder_attention_heads": 16,
            "decoder_attention_heads": 16,
            "encoder_ffn_dim": 4096,
            "decoder_ffn_dim": 4096,
            "max_position_embeddings": 4096,
        },
    )


def _clip(connector: str, **more: Any) -> Callable[[], FusionConfig]:
    return lambda: FusionConfig(vision_config=clip_large(), text_config=vicuna(), connector=connector, **more)


def _siglip(connector: str) -> Callable[[], FusionConfig]:
    return lambda: FusionConfig(vision_config=siglip(), text_config=vicuna(), connector=connector)


def _mg_llava() -> FusionConfig:
    return FusionConfig(
        vision_config=clip_large(), detail_config=convnext_large(), text_config=vicuna(), connector="conv_gate"
    )


def _florence_vl() -> FusionConfig:
    return FusionConfig(vision_config=florence_large(), text_config=vicuna(), connector="dbfusion")


_GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""image_grid_pinpoints of llava-v1.6-vicuna-7b."""

DESIGNS = (
    Design(
        "LLaVA-1.5, DenseFusion",
        _clip("mlp"),
        "the picture at 336 px, CLIP's last layer but one",
        "SEED-I 70.1, MMB 69.2, TextVQA 62.0 trained on DenseFusion-1M; 66.2, 64.3, 58.2 without (DenseFusion table 2)",
    ),
    Design(
        "LLaVA-1.6, the caption engine",
        _clip("mlp", image_grid_pinpoints=_GRID),
        "the picture at 336 px, and its tiles of 336 px",
        "SEED-I 70.2, MMB 67.4, TextVQA 64.9 (DenseFusion table 2)",
    ),
    Design(
        "DenseFusion-S2",
        _clip("s2"),
        "the picture at 336, 672 and 1,008 px, cut into windows of 336 px",
        "SEED-I 71.1, MMB 70.7, TextVQA 67.4 (DenseFusion table 2)",
    ),
    Design(
        "Dense Connector, STI",
        _clip("sti"),
        "336 px; layers 7 and 15 as further, pooled tokens",
        "GQA 63.3, TextVQA 58.0, MMB 67.2, MM-Vet 30.9; LLaVA-1.5 62.0, 58.2, 64.3, 31.1 (Dense Connector table 1)",
    ),
    Design(
        "Dense Connector, SCI",
        _clip("sci"),
        "336 px; layers 7 and 15 beside the last but one, by channel",
        "GQA 63.7, TextVQA 58.2, MMB 66.2, MM-Vet 32.2 (Dense Connector table 1)",
    ),
    Design(
        "Dense Connector, DCI",
        _clip("dci"),
        "336 px; means of the lower and the upper half of the layers, by channel",
        "GQA 63.8, TextVQA 59.2, MMB 66.8, MM-Vet 32.7 (Dense Connector table 1)",
    ),
    Design(
        "Dense Connector, DCI, SigLIP",
        _siglip("dci"),
        "384 px, as DCI",
        "GQA 64.2, TextVQA 62.6, MMB 68.4, MM-Vet 35.4 (Dense Connector table 2)",
    ),
    Design(
        "MG-LLaVA",
        _mg_llava,
        f"336 px by CLIP, 768 px by ConvNeXt, gated; {BOXES} boxes as object tokens",
        "MMB 72.1, SEED-I 69.4, TextVQA 67.3, DocVQA 47.9 (MG-LLaVA readme, Vicuna-7B)",
        boxes=BOXES,
    ),
    Design(
        "Florence-VL",
        _florence_vl,
        "768 px by Florence-2, and what its encoder makes of it under three prompts",
        "GQA 62.7, MMB 66.1, TextVQA 62.8, DocVQA 44.5; LLaVA-1.5 62.0, 64.8, 58.2, 28.1 (Florence-VL, Vicuna-7B, the "
        "data of LLaVA-1.5)",
    ),
)


def figures(design: Design) -> Figures:
    """Counts of one design at full size."""
    config = design.config()
    connector = connector_of(config.connector)
    canvas = connector.canvas(config)
    tokens = token_count(PICTURE, config) + design.boxes
    canvases = 1 + (PICTURE[0] // canvas) * (PICTURE[1] // canvas) if config.image_grid_pinpoints else 1
    with torch.device("meta"):
        vision = FusionVision(config).eval()
        language = AutoModelForCausalLM.from_config(config.text_config).eval()
        pixels = torch.zeros(canvases, 3, canvas, canvas)
    sees = _gflop(lambda: vision.connector(vision.towers, pixels))
    return Figures(
        design.name,
        config.connector,
        canvas,
        tokens,
        _millions(vision.towers),
        _millions(vision.connector),
        sees,
        _read_gflop(language.model, tokens),
    )


def _gflop(call: Callable[[], Any]) -> float:
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e9


def _read_gflop(blocks: torch.nn.Module, tokens: int) -> float:
    """Of the language model's blocks over so many tokens: every weight matrix once a token, and attention over all
    pairs of tokens (scores and weighted sum), as FlopCounterMode would count it."""
    matrices = sum(p.numel() for p in blocks.layers.parameters() if p.ndim == 2)
    attention = 4 * blocks.config.num_hidden_layers * blocks.config.hidden_size * tokens**2
    return (2 * matrices * tokens + attention) / 1e9


def _millions(module: torch.nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def page(rows: Sequence[Figures]) -> str:
    """The docs page."""
    lines = [
        "# The designs side by side",
        "",
        "Made by `python -m benchmarks.fusion.designs --page docs/designs.md`. Full-size models with Vicuna-7B as the "
        f"language model, one picture of {PICTURE[0]} x {PICTURE[1]} pixels, two operations a multiply-add; "
        "what the tokens of boxes cost the connector is not counted. A connector's official code and "
        "the figures that its port agrees to are in its file under `fusion/model/connectors`.",
        "",
        "| design | `connector` | canvas | visual tokens | towers, M | connector, M | towers and connector, GFLOP | "
        "language model over the tokens, GFLOP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.design} | `{r.connector}` | {r.canvas} px | {r.tokens} | {r.towers_m:,.0f} | {r.connector_m:,.1f} | "
            f"{r.vision_gflop:,.0f} | {r.language_gflop:,.0f} |"
        )
    lines += ["", "| design | what it sees | published results | source |", "|---|---|---|---|"]
    for d in DESIGNS:
        lines.append(f"| {d.name} | {d.sees} | {d.published} | {connector_of(d.config().connector).source} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(prog="python -m benchmarks.fusion.designs", description=__doc__)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--page", type=Path, help="write the docs page to this file")
    given = command.parse_args(arguments)
    rows = [figures(design) for design in DESIGNS]
    if given.page is not None:
        given.page.write_text(page(rows), encoding="utf-8")
    print(json.dumps([asdict(row) for row in rows], indent=2) if given.json else page(rows))


if __name__ == "__main__":
    main()
