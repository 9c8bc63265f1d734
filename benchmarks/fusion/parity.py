"""What the authors' connectors make of seeded weights and pictures, and how to have ours make the same.

RECORDED holds what these gave, in float32 on a CPU:

- mlp, s2: CLIPVisionTower, CLIPVisionTowerS2 and build_vision_projector of github.com/haotian-liu/LLaVA@c121f043 with
  forward of github.com/bfshi/scaling_on_scales@9c008a37;
- sti, sci, dci: LlavaMetaForCausalLM.encode_images of github.com/HJYao00/DenseConnector@0f8936c4 with its towers, the
  SigLIP of 27 layers being its own;
- conv_gate: MultiFuseObjectLLaVAModel._prepare_data_for_llm of github.com/PhoenixZ810/MG-LLaVA@3237152d with its
  OpenCLIPVisionTower, DualPathFuseModule, align_box and ProjectorModel, around a ConvNeXt of timm; roi_align was the
  kernel for CPUs of github.com/pytorch/vision, compiled alone;
- dbfusion: the projector of github.com/JiuhaiChen/Florence-VL@c1d4abd2 on what transformers' Florence2 gives: the
  authors' own Florence-2 is not published as code, so that only what follows it is compared.

Shims: mmengine, fairscale, deepspeed and most of xtuner, of which nothing is computed. The largest difference of any
value was 2.4e-6 (SigLIP), 6e-8 of conv_gate and 0 of the others.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    CLIPVisionConfig,
    Florence2Config,
    LlamaConfig,
    SiglipVisionConfig,
    TimmBackboneConfig,
)

from benchmarks.drawn import filled
from fusion.model.configuration import FusionConfig
from fusion.model.modeling import FusionVision

WIDTH = 16
"""Of the language model that the tokens are for."""


@dataclass(frozen=True)
class Case:
    """One connector at reduced width.

    Attributes:
        vision: configuration of the tower.
        boxes: of each picture, in pixels of the canvas; only for `conv_gate`.
        pictures: how many.
    """

    connector: str
    vision: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    detail: str | None = None
    boxes: tuple[tuple[tuple[int, ...], ...], ...] | None = None
    pictures: int = 2
    seed: int = 0

    def config(self) -> FusionConfig:
        return FusionConfig(
            vision_config=self.vision(),
            detail_config=self.detail and TimmBackboneConfig(backbone=self.detail, out_indices=[0, 1, 2, 3]),
            text_config=LlamaConfig(hidden_size=WIDTH, num_attention_heads=2),
            connector=self.connector,
            connector_options=self.options,
        )

    def weights(self, vision: FusionVision) -> dict[str, Tensor]:
        """Values for every parameter of towers and connector."""
        drawn = filled({name: tuple(value.shape) for name, value in vision.named_parameters()}, self.seed)
        return {name: value / 2 if value.ndim > 1 else value for name, value in drawn.items()}

    def pixels(self, canvas: int) -> Tensor:
        """float32 (pictures, 3, canvas, canvas): random cells of 8 px, neither smooth nor noise."""
        rng = np.random.default_rng(self.seed + 1)
        cells = rng.standard_normal((self.pictures, 3, -(-canvas // 8), -(-canvas // 8)), dtype=np.float32)
        fine = rng.standard_normal((self.pictures, 3, canvas, canvas), dtype=np.float32)
        return torch.from_numpy(cells.repeat(8, axis=2).repeat(8, axis=3)[:, :, :canvas, :canvas] + 0.2 * fine)


def clip(image: int, layers: int) -> Callable[[], CLIPVisionConfig]:
    return lambda: CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        image_size=image,
        patch_size=14,
    )


def siglip() -> SiglipVisionConfig:
    """As deep and as large a grid as so400m/14-384."""
    return SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=27,
        num_attention_heads=2,
        image_size=384,
        patch_size=14,
    )


def florence() -> Florence2Config:
    """With Florence-2's vocabulary, for the authors' prompts."""
    return Florence2Config(
        vision_config={
            "embed_dim": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "num_groups": [1, 1, 2, 2],
            "window_size": 4,
            "projection_dim": 16,
        },
        text_config=BartConfig(
            vocab_size=51289,
            d_model=16,
            encoder_layers=2,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=64,
        ).to_dict(),
    )


BOXES = (
    ((0, 0, 768, 768), (100, 200, 333, 651), (5, 7, 9, 8), (700, 3, 768, 400), (0, 0, 0, 0), (768, 768, 768, 768)),
    ((0, 0, 0, 0),),
)
"""All of the canvas, so that bins have 4 x 4 samples; one to four a side; smaller than a place; none; a corner."""

CASES: dict[str, Case] = {
    "mlp": Case("mlp", clip(84, 24)),
    "s2": Case("s2", clip(56, 4)),
    "sti": Case("sti", clip(84, 24)),
    "sci": Case("sci", clip(84, 24)),
    "dci": Case("dci", clip(84, 24)),
    "sti siglip": Case("sti", siglip, pictures=1),
    "sci siglip": Case("sci", siglip, pictures=1),
    "dci siglip": Case("dci", siglip, pictures=1),
    "conv_gate": Case("conv_gate", clip(336, 3), detail="test_convnext", boxes=BOXES),
    "dbfusion": Case("dbfusion", florence, {"canvas": 128}),
}


# fmt: off
RECORDED: dict[str, list[float]] = {
    "mlp": [
        -0.7091409, -0.0043328335, 2.2489693, 1.0504771, 0.15106378, 1.0765949, 0.29440984, 0.62834501,
        -1.4603084, 1.078928, 1.989189, 2.4796691, 0.56299555, 1.9490526, -0.083698392, -1.0459676, -0.94336152,
        2.1886177, 1.2550621, 0.74511552, -0.021274757, 4.264924, -0.78135103, 1.7223039, -0.69408151,
        0.4494624, 2.5724773, 0.51486038, 0.029091018, -0.54279188, 0.60620988, -0.36846639,
    ],
    "s2": [
        0.12510175, -0.022284955, 1.0010455, -0.79904622, 0.5868457, -1.3584156, -0.66760278, -1.7509531,
        -0.74147129, -0.70522183, -0.042890437, 0.4482041, -0.5555836, -0.55456805, -0.25328693, -0.72614217,
        0.45823693, 0.54447436, -1.4272293, 0.081952497, 0.48304954, -0.64633173, 0.26999184, -0.78310263,
        -1.4546888, 0.26997825, 1.426413, -0.4782012, -0.16489113, 0.21851678, -0.71979502, 0.26264767,
    ],
    "sti": [
        -0.7091409, -0.26178834, 1.9967611, 1.7818042, 1.6333201, -1.3635722, 0.8278445, -0.30537921,
        -0.083563358, 2.4796691, 0.15751386, -0.68262458, 0.99195659, -0.16794176, 0.094165266, -0.91074532,
        2.1886177, 1.0211977, -0.51608872, 0.18323377, 1.9844806, 0.31560695, -1.3599477, 1.1655103,
        -0.042499945, 0.33423702, 0.63661324, -0.8223909, -1.2657475, 1.4805822, -1.6150633, -1.6481992,
    ],
    "sci": [
        -0.32768971, -0.77831703, -2.7205484, 1.7415533, -1.827161, -1.7113391, -0.20432687, -1.2385743,
        1.1401665, -0.49129936, -1.345354, 2.1076937, -1.8797283, -1.9339347, -0.18274027, -2.4847503,
        -0.43075761, -1.649743, -0.72693789, 0.18441132, -0.86673158, -0.76408094, 0.14215882, -0.6139127,
        -0.42343195, 0.090670401, -0.087122175, 0.02242147, 0.30319341, -0.42423693, -1.2222869, 0.79235517,
    ],
    "dci": [
        0.061820239, -1.2290411, -2.3263319, 1.611719, -1.6763837, -1.8173597, 0.076193966, -0.98123306,
        1.4590027, -0.781712, -1.2161889, 2.0501852, -1.7114382, -2.03526, 0.30869269, -2.3232756, -0.1925005,
        -2.0602968, -0.70951486, 0.2019013, -0.76618361, -0.85892415, 0.40704748, -0.92853153, 0.19910804,
        0.20118499, -0.13548576, 0.25473851, -0.073788553, -0.2148492, -1.3542267, 1.0858351,
    ],
    "sti siglip": [
        0.55079341, 0.51707125, 1.2521863, -0.92968923, -1.4433249, 0.95542395, -0.39059207, 1.0924515,
        -0.46219644, 2.5559206, 1.0965478, -0.30720833, 2.7487011, 0.73737657, 2.0960958, -4.4660964, -1.349164,
        2.2967868, 0.45400825, 0.088994898, -1.3361853, -1.4434885, -1.0841851, 1.6000382, 1.0647812, 1.5236588,
        1.8206788, 0.26578654, 1.7435782, -0.50299009, -1.1985439, -0.85881698,
    ],
    "sci siglip": [
        -0.15889482, -1.3245356, 0.51401043, -0.25382838, 1.0502534, -0.33357716, 0.058407232, -0.91304159,
        0.97092748, 0.31273991, 0.74869633, 0.65621722, 0.77207255, -0.27596202, -2.345005, 0.53723407,
        0.023243576, 1.5426241, -0.13519764, 0.51946288, -1.1975019, 0.90728104, 0.74510252, 0.22861537,
        0.60776858, -0.51229489, -0.65889584, -0.16347761, 0.76178346, -0.86004628, -0.72952773, 0.63289887,
    ],
    "dci siglip": [
        -0.073814645, -0.98049355, 0.43726942, -0.16745631, 1.0171884, -0.24744713, 0.19115397, -0.96078241,
        1.0201222, 0.53244644, 0.84467161, 0.65163535, 0.74907315, -0.08803536, -2.0845809, 0.41424927,
        0.084161192, 1.4585751, 0.10701079, 0.41374561, -1.2869936, 0.93583578, 0.8428359, -0.16060507,
        0.75374621, -0.626996, -0.77066433, -0.11612706, 0.83476458, -0.75867158, -0.83944809, 0.62386212,
    ],
    "conv_gate": [
        0.71289355, 0.17356047, -0.74825352, 0.6786499, -1.0617418, 0.31185046, 0.24536753, 0.086771809,
        0.43542689, 0.41413331, -0.063750327, 0.71268702, -0.38105142, 0.51826352, 1.1963818, 0.01222836,
        -1.2672689, 0.071410447, 0.22015285, 0.8602016, -0.036372989, -0.097859755, -0.19072297, 0.16035372,
        -1.1860154, -0.85201836, -0.72366561, -0.40570694, 0.62624925, 1.3675373, 0.62412614, 1.1177189,
    ],
    "dbfusion": [
        0.037636943, 0.04103234, -0.079612553, 0.022903699, -0.28171039, 0.070354953, 0.37972501, -0.23628163,
        -0.15973541, -0.11064693, 0.1862261, -0.085551873, -0.207247, 0.0032560495, -0.19158335, -0.11368869,
        -0.14268805, 0.09133774, 0.037072726, 0.0058749132, -0.05979763, 0.067106582, -0.31087905, 0.070370167,
        -0.32810828, -0.17186233, -0.30709409, -0.11268076, -0.2573735, 0.08085445, -0.11389132, 0.054078569,
    ],
}
# fmt: on
"""What `digest` says of the tokens that the authors' code gives."""


@torch.inference_mode()
def ours(case: Case) -> Tensor:
    """Tokens of all pictures, one after the other: float32 (tokens, WIDTH)."""
    vision = FusionVision(case.config()).eval()
    vision.load_state_dict(case.weights(vision), strict=False)  # buffers have values of their own
    pixels = case.pixels(vision.connector.canvas(case.config()))
    boxes = None if case.boxes is None else [torch.tensor(own) for own in case.boxes]
    return torch.cat(vision(pixels, None, boxes))


def digest(tokens: Tensor) -> list[float]:
    """24 values from first to last, and 8 sums over all values with random signs, divided by the root of their number:
    a sum is as far off as one value is, if the values are off at random."""
    flat = tokens.double().flatten()
    places = torch.linspace(0, len(flat) - 1, 24).long()
    signs = torch.from_numpy(np.random.default_rng(9).choice([-1.0, 1.0], (8, len(flat))))
    return [*flat[places].tolist(), *(signs @ flat / len(flat) ** 0.5).tolist()]


def differences() -> dict[str, float]:
    """Largest absolute difference of each case's values from what the authors' code gave."""
    return {
        name: float((torch.tensor(digest(ours(case))) - torch.tensor(RECORDED[name])).abs().max())
        for name, case in CASES.items()
    }
