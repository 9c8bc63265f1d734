"""`dci`: Dense Connector's dense channel integration, means of groups of layers as further channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor

from fusion.model.connectors.base import Connector
from fusion.model.connectors.layers import BASE
from fusion.model.connectors.projector import projector
from fusion.model.towers import is_siglip, patch_grid
from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig
    from fusion.model.towers import Towers


class DCI(Connector):
    """The last layer but one and the mean of each of `groups` equal groups of layers, concatenated by channel.

    CLIP ViT-L/14-336 (24 layers): groups of 12, hidden states 0 to 11 and 12 to 23; the last of them, 23, is the last
    layer but one again -> 576 x 3072 -> 576 tokens. SigLIP so400m/14-384 (27 layers): groups of 13, hidden states 0 to
    12 and 13 to 25; 26, the last layer but one, is in none -> 729 x 3456 -> 729 tokens. State 0 is what goes into the
    first block. Means are sums in the tower's dtype, divided after. The paper's equation has the last layer behind the
    groups; its code has it first, and so it is here.
    """

    name = "dci"
    source = (
        "Dense Connector (arXiv 2405.13800), HJYao00/DenseConnector dc/model/multimodal_projector/dense_connector.py"
    )

    @dataclass(frozen=True)
    class Options:
        """Attributes:
        groups: that the tower's layers are divided into; without rest.
        """

        groups: Annotated[int, Field(ge=1)] = 2

    def __init__(self, config: "FusionConfig") -> None:
        super().__init__(config)
        averaged, groups = _averaged(config), self.options.groups
        if averaged < groups or averaged % groups:
            raise RequestError(
                f"The connector dci cannot divide {averaged} hidden states into {groups} equal groups: a tower of "
                f"{config.vision_config.num_hidden_layers} layers (vision_config) has that many to average. Choose "
                "another number (connector_options.groups)."
            )
        self.group = averaged // groups
        self.projector = projector(config.vision_config.hidden_size * (1 + groups), config.text_config.hidden_size)

    @classmethod
    def canvas(cls, config: "FusionConfig") -> int:
        return config.vision_config.image_size

    @classmethod
    def tokens(cls, config: "FusionConfig") -> int:
        return patch_grid(config.vision_config) ** 2

    def forward(self, towers: "Towers", pixels: Tensor, boxes: Sequence[Tensor] | None = None) -> Tensor:
        count = self.group * self.options.groups
        base, *states = towers.vision.states(pixels, [BASE, *range(count)])
        means = [
            torch.stack(states[start : start + self.group]).sum(dim=0) / self.group
            for start in range(0, count, self.group)
        ]
        return self.projector(torch.cat([base, *means], dim=2))


def _averaged(config: "FusionConfig") -> int:
    """How many hidden states from 0 on are averaged: with CLIP the last layer but one is the last of them, with SigLIP
    the one before it."""
    depth = config.vision_config.num_hidden_layers
    return depth - 1 if is_siglip(config.vision_config) else depth
