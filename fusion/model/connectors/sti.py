"""`sti`: Dense Connector's sparse token integration, earlier layers as further tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from fusion.model.connectors.base import Connector
from fusion.model.connectors.layers import BASE, check_layers
from fusion.model.connectors.projector import projector
from fusion.model.towers import patch_grid
from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig
    from fusion.model.towers import Towers


class STI(Connector):
    """The last layer but one, then earlier layers averaged over every `pool` tokens in raster order.

    CLIP ViT-L/14-336: 576 + 72 + 72 = 720 x 1024 -> 720 tokens. SigLIP so400m/14-384: 729 + 91 + 91 = 911 x 1152 -> 911
    tokens; what is left of 729 / 8 is dropped.
    """

    name = "sti"
    source = (
        "Dense Connector (arXiv 2405.13800), HJYao00/DenseConnector dc/model/multimodal_projector/dense_connector.py"
    )
    gridded = False

    @dataclass(frozen=True)
    class Options:
        """Attributes:
        layers: indices in the tower's hidden states as transformers counts them. The paper counts the stem as layer 1:
            its layers 8 and 16 are 7 and 15 here.
        pool: tokens averaged into one.
        """

        layers: tuple[int, ...] = (7, 15)
        pool: Annotated[int, Field(ge=1)] = 8

    def __init__(self, config: "FusionConfig") -> None:
        super().__init__(config)
        check_layers(self.name, self.options.layers, config)
        patches = patch_grid(config.vision_config) ** 2
        if self.options.pool > patches:
            raise RequestError(
                f"The connector sti is to average every {self.options.pool} tokens (connector_options.pool), and the "
                f"tower (vision_config) has {patches} patches. Average fewer."
            )
        self.projector = projector(config.vision_config.hidden_size, config.text_config.hidden_size)

    @classmethod
    def canvas(cls, config: "FusionConfig") -> int:
        return config.vision_config.image_size

    @classmethod
    def tokens(cls, config: "FusionConfig") -> int:
        options = cls.options_of(config)
        patches = patch_grid(config.vision_config) ** 2
        return patches + len(options.layers) * (patches // options.pool)

    def forward(self, towers: "Towers", pixels: Tensor, boxes: Sequence[Tensor] | None = None) -> Tensor:
        base, *earlier = towers.vision.states(pixels, [BASE, *self.options.layers])
        pooled = [functional.avg_pool1d(one.transpose(1, 2), self.options.pool).transpose(1, 2) for one in earlier]
        return self.projector(torch.cat([base, *pooled], dim=1))
