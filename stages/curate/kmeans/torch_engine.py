"""Half-precision products: a few passes over all centroids, then passes over those near each row's own."""

from typing import TYPE_CHECKING

import numpy as np

from stages.curate.kmeans.engine import Engine

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 64
"""Centroids that a local pass looks at, the row's own among them."""
TILE = 32
"""Rows of one centroid that a local pass multiplies at once; a centroid's last tile is filled up."""
TILES = 32
"""In one call."""
SCORES = 1 << 22
"""Products that a full pass holds in each thread."""
FULL_ROWS = 4096
NEIGHBOUR_ROWS = 512


class TorchEngine(Engine):
    """bfloat16 on a CPU, which has no instructions for float16 products; float16 on a GPU.

    Every product is of one fixed shape and on one thread, so the labels are the same for any number of threads.
    """

    def nearest(self, centroids: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        if labels is None or len(centroids) < 4 * NEIGHBOURS:
            return self._full(centroids)
        return self._local(centroids, labels)

    def _low(self, values: "Tensor") -> "Tensor":
        import torch

        return values.float().bfloat16() if self.device == "cpu" else values.to(torch.float16)

    def _full(self, centroids: np.ndarray) -> np.ndarray:
        import torch

        # What all centroids share orders nothing, and takes digits away from what does.
        against = self._low(torch.from_numpy(centroids - centroids.mean(0)).to(self.device)).T
        rows = min(FULL_ROWS, max(256, SCORES // len(centroids)))
        labels = np.empty(len(self.rows), np.int32)

        def search(start: int) -> None:
            at = slice(start, start + rows)
            labels[at] = best_columns(self._low(self._padded(at, rows)) @ against)[: len(labels[at])]

        for _ in self.run(search, range(0, len(labels), rows)):
            pass
        return labels

    def _padded(self, at: slice, rows: int) -> "Tensor":
        taken = self.take(at)
        return taken if len(taken) == rows else taken[np.arange(rows) % len(taken)]

    def _local(self, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:
        import torch

        near = self._neighbours(centroids)
        against = self._low(torch.from_numpy(centroids).to(self.device))
        order, owners = _tiles(labels, len(centroids))
        found = np.empty(len(labels), np.int32)

        def search(start: int) -> None:
            tiles = order[start : start + TILES]
            columns = near[owners[start : start + TILES]]
            rows = self._low(self.take(tiles.reshape(-1))).view(*tiles.shape, -1)
            some = against[torch.from_numpy(columns.reshape(-1)).to(self.device)].view(*columns.shape, -1)
            best = best_columns(torch.bmm(rows, some.transpose(1, 2)))
            found[tiles] = np.take_along_axis(columns, best, 1)

        for _ in self.run(search, range(0, len(order), TILES)):
            pass
        return found

    def _neighbours(self, centroids: np.ndarray) -> np.ndarray:
        """The nearest centroids of each centroid, itself among them, in order of number: int32 of (k, NEIGHBOURS)."""
        import torch

        k = len(centroids)
        against = self._low(torch.from_numpy(centroids).to(self.device))
        near = np.empty((k, NEIGHBOURS), np.int32)

        def search(start: int) -> None:
            at = np.arange(start, start + NEIGHBOUR_ROWS) % k
            scores = against[torch.from_numpy(at).to(self.device)] @ against.T
            scores[np.arange(len(at)), at] = 2  # a copy of a centroid may be as near as itself
            stop = min(start + NEIGHBOUR_ROWS, k)
            near[start:stop] = _top(scores)[: stop - start]

        for _ in self.run(search, range(0, k, NEIGHBOUR_ROWS)):
            pass
        return near


def best_columns(scores: "Tensor") -> np.ndarray:
    """The first column of the greatest score along the last axis, int64."""
    import torch

    if scores.device.type != "cpu":
        return scores.argmax(-1).cpu().numpy()
    # numpy's search among int16 is a hundred times as fast as torch's among bfloat16
    best: np.ndarray = ordered(scores.view(torch.int16).numpy()).argmax(-1)
    return best


def ordered(bits: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 or float16 numbers, int16, as numbers of the same order; in place."""
    flip = bits >> 15
    flip &= 0x7FFF
    bits ^= flip
    return bits


def _top(scores: "Tensor") -> np.ndarray:
    import torch

    if scores.device.type != "cpu":
        return scores.topk(NEIGHBOURS).indices.sort().values.to(torch.int32).cpu().numpy()
    keys = ordered(scores.view(torch.int16).numpy()).astype(np.int64) << 32
    keys |= np.arange(keys.shape[1])
    return np.sort(np.partition(keys, keys.shape[1] - NEIGHBOURS, axis=1)[:, -NEIGHBOURS:] & 0xFFFFFFFF).astype(
        np.int32
    )


def _tiles(labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in tiles of one label each: int64 of (tiles, TILE), rows repeated to fill a tile; the label of each tile.

    The number of tiles is a multiple of TILES.
    """
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=k)
    tiles = -(-counts // TILE)
    owners = np.repeat(np.arange(k), tiles)
    number = np.arange(len(owners)) - np.repeat(tiles.cumsum() - tiles, tiles)
    first = (counts.cumsum() - counts)[owners] + number * TILE
    length = np.minimum(counts[owners] - number * TILE, TILE)
    rows = order[first[:, None] + np.arange(TILE) % length[:, None]]
    short = -len(rows) % TILES
    return np.concatenate([rows, rows[:1].repeat(short, 0)]), np.concatenate([owners, owners[:1].repeat(short)])
