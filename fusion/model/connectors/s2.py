"""`s2`: one tower at several scales, by which DenseFusion's high-resolution model sees small things and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
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


class S2(Connector):
    """The picture at each scale is cut into windows as large as the tower takes; their features are put together again,
    pooled to the grid of the first scale and concatenated by channel.

    CLIP ViT-L/14-336: a canvas of 1,008 px; 1 + 4 + 9 windows of 336 px; maps of 24, 48 and 72 squared x 1024, each
    pooled to 24 x 24 -> 576 x 3072 -> 576 tokens. Smaller scales are the canvas resized by bicubic interpolation in
    float32, align_corners off, without antialiasing; pooling is in float32 too.
    """

    name = "s2"
    source = "S2 (arXiv 2403.13043), bfshi/scaling_on_scales s2wrapper/core.py; DenseFusion scripts *_s2.sh"

    @dataclass(frozen=True)
    class Options:
        """Attributes:
        scales: multiples of the tower's side, from 1 on.
        layer: index in the tower's hidden states, as transformers counts them.
        """

        scales: tuple[int, ...] = (1, 2, 3)
        layer: int = BASE

    def __init__(self, config: "FusionConfig") -> None:
        super().__init__(config)
        scales = self.options.scales
        check_layers(self.name, [self.options.layer], config)
        if scales[:1] != (1,) or any(one >= other for one, other in pairwise(scales)):
            raise RequestError(
                f"The connector s2 takes scales that start with 1 and grow (connector_options.scales): {list(scales)} "
                "do not."
            )
        self.projector = projector(config.vision_config.hidden_size * len(scales), config.text_config.hidden_size)

    @classmethod
    def canvas(cls, config: "FusionConfig") -> int:
        return config.vision_config.image_size * max(cls.options_of(config).scales, default=1)

    @classmethod
    def tokens(cls, config: "FusionConfig") -> int:
        return patch_grid(config.vision_config) ** 2

    def forward(self, towers: "Towers", pixels: Tensor, boxes: Sequence[Tensor] | None = None) -> Tensor:
        side = towers.vision.side
        maps = []
        for scale in self.options.scales:
            windows = _windows(_resized(pixels, side * scale), scale)
            (state,) = towers.vision.states(windows, [self.options.layer])
            maps.append(_merged(state, scale))
        grid = maps[0].shape[-2:]
        pooled = [functional.adaptive_avg_pool2d(one.float(), grid).to(one.dtype) for one in maps]
        return self.projector(torch.cat(pooled, dim=1).flatten(2).transpose(1, 2))


def _resized(pixels: Tensor, side: int) -> Tensor:
    if pixels.shape[-1] == side:
        return pixels
    return functional.interpolate(pixels.float(), size=side, mode="bicubic").to(pixels.dtype)


def _windows(pixels: Tensor, across: int) -> Tensor:
    """(n, 3, across * side, across * side) -> (n * across * across, 3, side, side), raster order within a picture."""
    parts = pixels.unflatten(3, (across, -1)).unflatten(2, (across, -1))  # n, 3, row, y, column, x
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def _merged(states: Tensor, across: int) -> Tensor:
    """(n * across * across, patches, width) -> (n, width, across * grid, across * grid)."""
    grid = round(states.shape[1] ** 0.5)
    parts = states.unflatten(1, (grid, grid)).unflatten(0, (-1, across, across))  # n, row, column, y, x, width
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
