"""The nearest centroids of all rows, in pieces of several shards that workers share."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base import GatherInput
from stages.cluster.section import ClusterSection
from stages.curate.kmeans import Tree, single_threads
from stages.curate.vectors import Vectors, vector_array
from stages.kept import kept_file

PIECE_ROWS = 1 << 16
"""Rows of a piece, at least; and a quarter as many as there are centroids, which each piece prepares anew."""


@dataclass(frozen=True)
class _Piece:
    config: ClusterSection
    number: int
    shards: tuple[str, ...]


def assign_shards(
    inputs: GatherInput, config: ClusterSection, tree: Tree, shards: list[str], rows: list[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each shard the nearest centroids of its rows and the cosines to them, best first.

    Args:
        rows: of each shard.

    Yields:
        int32 and float32 of (rows, min(config.neighbours, k)); -1 and 0 where a tree showed a row fewer centroids.
    """
    kept_file(inputs.kept / "tree.npz", tree.save)
    before = np.cumsum([0, *rows[:-1]]) // max(PIECE_ROWS, len(tree.levels[-1]) // 4)
    cuts = np.flatnonzero(np.diff(before, prepend=-1)).tolist()
    ends = [*cuts[1:], len(shards)]
    items = [_Piece(config, i, tuple(shards[a:b])) for i, (a, b) in enumerate(zip(cuts, ends, strict=True))]
    for a, b, path in zip(cuts, ends, inputs.spread(_assign, items), strict=True):
        with np.load(path) as held:
            numbers, cosines = held["numbers"], held["cosines"]
        borders = np.cumsum(rows[a:b])[:-1]
        yield from zip(np.split(numbers, borders), np.split(cosines, borders), strict=True)


def _assign(inputs: GatherInput, item: _Piece) -> Path:
    """Where the results of a piece lie."""

    def write(path: Path) -> None:
        config = item.config
        tree = Tree.load(inputs.kept / "tree.npz")
        tables = [inputs.table("embed", shard, ["embedding"]) for shard in item.shards]
        parts = [vector_array(table.column("embedding")) for table in tables if table.num_rows]
        rows = np.concatenate([np.empty((0, tree.levels[-1].shape[1]), np.float16), *parts])
        with single_threads(config.threads) as run:
            numbers, cosines = tree.search(
                Vectors.of(rows), config.neighbours, config.probes, config.resources.device, run
            )
        np.savez(path, numbers=numbers, cosines=cosines)

    return kept_file(inputs.kept / f"assigned{item.number:06d}.npz", write)
