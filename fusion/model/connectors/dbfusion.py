"""`dbfusion`: Florence-VL's depth-breadth fusion, what Florence-2 sees and what it makes of that under prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from fusion.model.connectors.base import Connector
from fusion.model.connectors.projector import projector
from fusion.model.towers import Florence, florence_stride
from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig
    from fusion.model.towers import Towers

PROMPTS = (
    (0, 47066, 21700, 11, 4617, 99, 16, 2343, 11, 5, 2274, 4, 2, 1),
    (0, 2264, 16, 5, 2788, 11, 5, 2274, 116, 2, 1, 1, 1, 1),
    (0, 574, 22486, 5, 8720, 11, 5, 2274, 6, 19, 49, 24173, 4, 2),
)
"""Ids in BART's vocabulary, 1 is padding: a detailed caption, the text, the objects. JiuhaiChen/Florence-VL
`llava/model/multimodal_encoder/florence_encoder.py`."""


class DBFusion(Connector):
    """Florence-2's projected image tower (depth) and its encoder's states at the picture's tokens, once for each prompt
    (breadth), concatenated by channel.

    Florence-2-large: a canvas of 768 px; 577 tokens, the mean and a grid of 24 x 24, of which the grid is kept; 4 x
    1024 -> 576 x 4096 -> 576 tokens through Linear and twice GELU, Linear.

    Three points are in no published code, as the authors' Florence-2 is a changed one: which of the 577 tokens is left
    out, the order of the prompts' states, and whether padding is attended to. They are options; parity with the
    authors' checkpoints is not claimed for them. It is claimed for what follows: the concatenation and the projector.
    """

    name = "dbfusion"
    source = (
        "Florence-VL (arXiv 2412.04424), JiuhaiChen/Florence-VL llava/model/multimodal_encoder/florence_encoder.py, "
        "multimodal_projector/builder.py"
    )
    tower = Florence

    @dataclass(frozen=True)
    class Options:
        """Attributes:
        canvas: side in pixels.
        prompts: token ids of each, in the order that their states are concatenated; that of the authors' list by
            default.
        left_out: which token of the picture is not used. `first`, the default, is the mean, and leaves the grid that
            the paper's 576 tokens suggest; `last` is the lower right corner.
        pad: a token id that is not attended to; None, the default, attends to padding too, as stock Florence-2 does
            with prompts that it is given without a mask.
        """

        canvas: Annotated[int, Field(ge=1)] = 768
        prompts: Annotated[tuple[tuple[int, ...], ...], Field(min_length=1)] = PROMPTS
        left_out: Literal["first", "last"] = "first"
        pad: int | None = None

    def __init__(self, config: "FusionConfig") -> None:
        super().__init__(config)
        self._check_size(config)
        width = config.vision_config.vision_config.projection_dim * (1 + len(self.options.prompts))
        self.projector = projector(width, config.text_config.hidden_size, depth=3)

    def _check_size(self, config: "FusionConfig") -> None:
        canvas, image, text = self.options.canvas, config.vision_config.vision_config, config.vision_config.text_config
        stride = florence_stride(config.vision_config)
        if canvas % stride or canvas // stride > image.max_position_embeddings:
            raise RequestError(
                f"The connector dbfusion takes a canvas of a multiple of {stride} px, up to "
                f"{stride * image.max_position_embeddings} px, with this Florence-2 (vision_config); "
                f"connector_options.canvas is {canvas}."
            )
        longest = 1 + (canvas // stride) ** 2 + max(map(len, self.options.prompts))
        if longest > text.max_position_embeddings:
            raise RequestError(
                f"A picture and a prompt of the connector dbfusion are {longest} tokens, and this Florence-2 "
                f"(vision_config.text_config.max_position_embeddings) reads {text.max_position_embeddings}. Choose a "
                "smaller connector_options.canvas."
            )
        strange = sorted({i for prompt in self.options.prompts for i in prompt if not 0 <= i < text.vocab_size})
        if strange:
            raise RequestError(
                f"The prompts of the connector dbfusion (connector_options.prompts) have the token {strange[0]}, and "
                f"this Florence-2 knows {text.vocab_size} tokens. Give prompts in its own vocabulary."
            )

    @classmethod
    def canvas(cls, config: "FusionConfig") -> int:
        return cls.options_of(config).canvas

    @classmethod
    def tokens(cls, config: "FusionConfig") -> int:
        return (cls.options_of(config).canvas // florence_stride(config.vision_config)) ** 2

    def forward(self, towers: "Towers", pixels: Tensor, boxes: Sequence[Tensor] | None = None) -> Tensor:
        depth = towers.vision.depth(pixels)
        breadth = [towers.vision.breadth(depth, prompt, self.options.pad) for prompt in self.options.prompts]
        features = torch.cat([depth, *breadth], dim=2)
        return self.projector(features[:, 1:] if self.options.left_out == "first" else features[:, :-1])
