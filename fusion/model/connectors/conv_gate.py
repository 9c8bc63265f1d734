"""`conv_gate`: MG-LLaVA's gated fusion of a ViT and a convolutional tower, and tokens of the objects in boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fusion.model.connectors.base import Connector
from fusion.model.connectors.layers import BASE, check_layers
from fusion.model.connectors.projector import projector
from fusion.model.connectors.roi import roi_means
from fusion.model.towers import patch_grid, stages_of
from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig
    from fusion.model.towers import Towers


class DualPathFuse(nn.Module):
    """Adds a fine map to coarse tokens through one gate a picture.

    With L the tokens as a map and H the fine map: L' = L + 1x1(GELU(7x7 depthwise(L))); H' = 1x1(GELU(1x1(H))); out =
    L' + tanh(gate) H', where the gate is one number, an MLP of the mean over places of [L', H']. The last 1x1
    convolutions start at zero, so that at first out is L. The paper adds to L and calls the convolutions
    one-dimensional; this is the code.

    Source: PhoenixZ810/MG-LLaVA `mg_llava/module/fuse_model.py` DualPathFuseModule, whose names the weights have.
    """

    def __init__(self, width: int, fine: int) -> None:
        super().__init__()
        self.slow_conv = nn.Conv2d(fine, fine, 1)
        self.slow_proj = nn.Conv2d(fine, width, 1)
        self.fast_conv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.fast_proj = nn.Conv2d(width, width, 1)
        self.gate = nn.Sequential(nn.Linear(2 * width, width // 2), nn.GELU(), nn.Linear(width // 2, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The published start of the convolutions; the gate keeps torch's own."""
        for conv in (self.slow_conv, self.fast_conv):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)
        for conv in (self.slow_proj, self.fast_proj):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, tokens: Tensor, fine: Tensor) -> Tensor:
        """Fused tokens, (n, grid * grid, width).

        Args:
            tokens: (n, grid * grid, width), raster order.
            fine: (n, fine, grid, grid).
        """
        high = self.slow_proj(functional.gelu(self.slow_conv(fine))).flatten(2).transpose(1, 2)
        low = tokens.transpose(1, 2).unflatten(2, fine.shape[-2:])
        low = (low + self.fast_proj(functional.gelu(self.fast_conv(low)))).flatten(2).transpose(1, 2)
        gate = self.gate(torch.cat([low, high], dim=2).mean(dim=1)).unsqueeze(1)
        return low + high * gate.tanh()


class ConvGate(Connector):
    """CLIP's tokens with ConvNeXt's last map added through a gate, then one token for each box.

    CLIP ViT-L/14-336 and CLIP ConvNeXt-L: a canvas of 768 px, which CLIP sees resized to 336 px (bilinear,
    align_corners off, no antialiasing, after normalisation); 576 x 1024 and 1536 x 24 x 24 -> 576 tokens. A box's token
    is made of the mean over 56 x 56 bins of RoI align (sampling adaptive, aligned off) on all stages' maps, which are
    interpolated to the first's 192 x 192 (bilinear): 192 + 384 + 768 + 1536 = 2880 channels, in float32. Two
    projectors, each Linear, GELU, Linear.

    Where the towers compute in less than float32, the published code rounds the interpolated maps to that; here they
    stay float32.
    """

    name = "conv_gate"
    source = "MG-LLaVA (arXiv 2406.17770), PhoenixZ810/MG-LLaVA mg_llava/module/{fuse_model,openclip_encoder}.py"
    detailed = True
    takes_boxes = True
    gridded = False

    @dataclass(frozen=True)
    class Options:
        """Attributes:
        canvas: side in pixels of what the detail tower sees.
        roi: bins along each side of a box.
        layer: index in the ViT's hidden states, as transformers counts them.
        """

        canvas: Annotated[int, Field(ge=1)] = 768
        roi: Annotated[int, Field(ge=1)] = 56
        layer: int = BASE

    def __init__(self, config: "FusionConfig") -> None:
        super().__init__(config)
        check_layers(self.name, [self.options.layer], config)
        widths, strides = stages_of(config.detail_config)
        canvas, grid = self.options.canvas, patch_grid(config.vision_config)
        if canvas % strides[-1] or canvas // strides[-1] != grid:
            raise RequestError(
                f"The connector conv_gate adds the detail tower's last map to a grid of {grid} x {grid} patches "
                f"(vision_config): with a step of {strides[-1]} px (detail_config) that needs a canvas of "
                f"{grid * strides[-1]} px, and connector_options.canvas is {canvas}."
            )
        self.scale = 1 / strides[0]
        width, out = config.vision_config.hidden_size, config.text_config.hidden_size
        self.fuse = DualPathFuse(width, widths[-1])
        self.projector = projector(width, out)
        self.box_projector = projector(sum(widths), out)

    def initialise(self) -> None:
        super().initialise()
        self.fuse.reset_parameters()

    @classmethod
    def canvas(cls, config: "FusionConfig") -> int:
        return cls.options_of(config).canvas

    @classmethod
    def tokens(cls, config: "FusionConfig") -> int:
        return patch_grid(config.vision_config) ** 2

    def forward(self, towers: "Towers", pixels: Tensor, boxes: Sequence[Tensor] | None = None) -> list[Tensor]:
        assert towers.detail is not None
        coarse = functional.interpolate(pixels.float(), size=towers.vision.side, mode="bilinear", align_corners=False)
        (tokens,) = towers.vision.states(coarse.to(pixels.dtype), [self.options.layer])
        maps = towers.detail.maps(pixels)
        pictures = self.projector(self.fuse(tokens, maps[-1].to(tokens.dtype)))
        if boxes is None:
            return list(pictures)
        # Projected all at once: a module that is called once a picture would keep ZeRO-3's processes waiting, whose
        # batches have different numbers of them.
        seen = torch.cat([self._box_means([one[i] for one in maps], own) for i, own in enumerate(boxes)])
        objects = self.box_projector(seen.to(self.box_projector[0].weight.dtype)).to(pictures.dtype)
        counts = [len(own) for own in boxes]
        return [torch.cat(both) for both in zip(pictures, objects.split(counts), strict=True)]

    def _box_means(self, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
        inside = boxes.to(maps[0].device).clamp(0, self.options.canvas)
        return roi_means(maps, inside * self.scale, self.options.roi)
