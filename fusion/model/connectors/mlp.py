"""`mlp`: the projector of LLaVA-1.5, which DenseFusion's own model uses at one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fusion.model.connectors.base import Connector
from fusion.model.connectors.layers import BASE, check_layers
from fusion.model.connectors.projector import projector
from fusion.model.towers import patch_grid

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig
    from fusion.model.towers import Towers


class MLP(Connector):
    """Linear, GELU, Linear over the patches of one layer. CLIP ViT-L/14-336: 576 x 1024 -> 576 tokens."""

    name = "mlp"
    source = "LLaVA-1.5 (arXiv 2310.03744), haotian-liu/LLaVA llava/model/multimodal_projector/builder.py"

    @dataclass(frozen=True)
    class Options:
        """Attributes:
        layer: index in the tower's hidden states, as transformers counts them.
        """

        layer: int = BASE

    def __init__(self, config: "FusionConfig") -> None:
        super().__init__(config)
        check_layers(self.name, [self.options.layer], config)
        self.projector = projector(config.vision_config.hidden_size, config.text_config.hidden_size)

    @classmethod
    def canvas(cls, config: "FusionConfig") -> int:
        return config.vision_config.image_size

    @classmethod
    def tokens(cls, config: "FusionConfig") -> int:
        return patch_grid(config.vision_config) ** 2

    def forward(self, towers: "Towers", pixels: Tensor, boxes: Sequence[Tensor] | None = None) -> Tensor:
        (state,) = towers.vision.states(pixels, [self.options.layer])
        return self.projector(state)
