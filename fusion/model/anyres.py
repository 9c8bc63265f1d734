"""AnyRes of LLaVA-NeXT: a large picture as a grid of canvases beside the whole of it scaled down.

Source: transformers' LLaVA-NeXT, which serves the checkpoints that the DenseFusion paper's caption engine starts from.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fusion.model.connectors import connector_of
from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig

Size = tuple[int, int]
"""Height and width in pixels."""


def best_size(size: Size, pinpoints: Sequence[Sequence[int]]) -> Size:
    """Of the sizes that a picture may be tiled to, the one that keeps most of its pixels, and among those the one that
    wastes fewest; the first of equals."""
    height, width = size

    def fit(point: Sequence[int]) -> tuple[int, int]:
        scale = min(point[1] / width, point[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - point[0] * point[1]

    best = max(pinpoints, key=fit)
    return best[0], best[1]


def inner_size(size: Size, target: Size) -> Size:
    """The size of a picture scaled to lie inside of `target` and touch two of its sides."""
    height, width = size
    if target[1] / width < target[0] / height:
        return min(math.ceil(height * target[1] / width), target[0]), target[1]
    return target[0], min(math.ceil(width * target[0] / height), target[1])


def tiles(size: Size, pinpoints: Sequence[Sequence[int]], canvas: int) -> Size:
    """Rows and columns of canvases that a picture is tiled to."""
    target = best_size(size, pinpoints)
    return target[0] // canvas, target[1] // canvas


def canvases(size: Size, config: "FusionConfig") -> int:
    """Canvases that a picture becomes: one, or with AnyRes one more than its tiles."""
    if not config.image_grid_pinpoints:
        return 1
    rows, columns = tiles(size, config.image_grid_pinpoints, connector_of(config.connector).canvas(config))
    return 1 + rows * columns


def check_grid(config: "FusionConfig") -> None:
    """Raises RequestError for `image_grid_pinpoints` that the connector cannot take, or that are no whole canvases."""
    if not config.image_grid_pinpoints:
        return
    connector = connector_of(config.connector)
    if not connector.gridded:
        raise RequestError(
            f"image_grid_pinpoints asks for AnyRes, but the tokens of the connector {connector.name} are no grid that "
            "tiles can be joined on. Leave image_grid_pinpoints out, or take a connector whose tokens are a grid."
        )
    side = connector.canvas(config)
    for point in config.image_grid_pinpoints:
        if len(point) != 2 or any(edge < side or edge % side for edge in point):
            raise RequestError(
                f"image_grid_pinpoints has {list(point)}, which is no height and width in whole canvases of {side} "
                f"pixels, the size that the connector {connector.name} takes."
            )


def unpadded(rows: int, columns: int, size: Size) -> tuple[slice, slice]:
    """Of a map of `rows` x `columns` features over a padded picture of that size: the part that is the picture."""
    height, width = size
    if width / height > columns / rows:
        pad = (rows - int(round(height * (columns / width), 7))) // 2
        return slice(pad, rows - pad), slice(0, columns)
    pad = (columns - int(round(width * (rows / height), 7))) // 2
    return slice(0, rows), slice(pad, columns - pad)


def token_count(size: Size, config: "FusionConfig") -> int:
    """Visual tokens of a picture, without those of boxes."""
    connector = connector_of(config.connector)
    base = connector.tokens(config)
    if not config.image_grid_pinpoints:
        return base
    side = math.isqrt(base)
    rows, columns = tiles(size, config.image_grid_pinpoints, connector.canvas(config))
    down, across = unpadded(rows * side, columns * side, size)
    height, width = down.stop - down.start, across.stop - across.start
    return base + height * (width + 1)


def joined(
    canvases: Sequence[Tensor], sizes: Sequence[Sequence[int]], config: "FusionConfig", newline: Tensor
) -> list[Tensor]:
    """Tokens of each picture: those of the whole, then those of its tiles row by row, `newline` after each row.

    Args:
        canvases: (tokens, width) of every canvas: for each picture the whole, then its tiles in raster order.
        sizes: height and width in pixels of each picture before scaling.
        newline: (width,).
    """
    canvas = connector_of(config.connector).canvas(config)
    pictures, place = [], 0
    for height, width in sizes:
        rows, columns = tiles((height, width), config.image_grid_pinpoints or [], canvas)
        whole, *parts = canvases[place : place + 1 + rows * columns]
        place += 1 + rows * columns
        side = math.isqrt(len(whole))
        grid = torch.stack(parts).view(rows, columns, side, side, -1).transpose(1, 2).flatten(0, 1).flatten(1, 2)
        down, across = unpadded(rows * side, columns * side, (height, width))
        grid = grid[down, across]
        ends = newline.to(grid.dtype).expand(len(grid), 1, -1)
        pictures.append(torch.cat([whole, torch.cat([grid, ends], dim=1).flatten(0, 1)]))
    return pictures
