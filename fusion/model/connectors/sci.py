"""`sci`: Dense Connector's sparse channel integration, earlier layers as further channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fusion.model.connectors.base import Connector
from fusion.model.connectors.layers import BASE, check_layers
from fusion.model.connectors.projector import projector
from fusion.model.towers import patch_grid

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig
    from fusion.model.towers import Towers


class SCI(Connector):
    """The last layer but one and earlier layers, concatenated by channel.

    CLIP ViT-L/14-336: 576 x 3072 -> 576 tokens. SigLIP so400m/14-384: 729 x 3456 -> 729 tokens.
    """

    name = "sci"
    source = (
        "Dense Connector (arXiv 2405.13800), HJYao00/DenseConnector dc/model/multimodal_projector/dense_connector.py"
    )

    @dataclass(frozen=True)
    class Options:
        """Attributes:
        layers: indices in the tower's hidden states as transformers counts them. The paper counts the stem as layer 1:
            its layers 8 and 16 are 7 and 15 here.
        """

        layers: tuple[int, ...] = (7, 15)

    def __init__(self, config: "FusionConfig") -> None:
        super().__init__(config)
        check_layers(self.name, self.options.layers, config)
        width = config.vision_config.hidden_size * (1 + len(self.options.layers))
        self.projector = projector(width, config.text_config.hidden_size)

    @classmethod
    def canvas(cls, config: "FusionConfig") -> int:
        return config.vision_config.image_size

    @classmethod
    def tokens(cls, config: "FusionConfig") -> int:
        return patch_grid(config.vision_config) ** 2

    def forward(self, towers: "Towers", pixels: Tensor, boxes: Sequence[Tensor] | None = None) -> Tensor:
        return self.projector(torch.cat(towers.vision.states(pixels, [BASE, *self.options.layers]), dim=2))
