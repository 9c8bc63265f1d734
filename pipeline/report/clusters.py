"""A few clusters as sheets: the rows nearest to and farthest from the centroid; and how the sizes are spread."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.tiles import Tile, Tiles
from pipeline.sample import SEED, Clusters, Extent
from pipeline.store import Store

_EDGE_ROWS = 8  # of a cluster, nearest to and farthest from its centroid


@dataclass(frozen=True)
class ClusterView:
    """A cluster's rows nearest to and farthest from its centroid; `why` says how it came to be shown."""

    number: int
    why: str
    size: int
    mean_cosine: float
    nearest: list[Tile]
    farthest: list[Tile]


def _chosen(clusters: Clusters) -> dict[int, str]:
    """A few clusters to show, and why each."""
    present = clusters.present
    middle = len(present) // 2
    drawn = np.random.default_rng(SEED).permutation(present)[:2]
    places = [*((c, "largest") for c in present[:2]), (present[middle], "of median size"), (present[-1], "smallest")]
    chosen: dict[int, str] = {}
    for number, why in [*places, *((c, "drawn by seed") for c in drawn)]:
        chosen.setdefault(int(number), why)
    return chosen


def cluster_views(store: Store, extent: Extent, tiles: Tiles, clusters: Clusters) -> Iterator[ClusterView]:
    chosen = _chosen(clusters)
    edges = _edges(store, extent, list(chosen))
    tiles.find(uid for rows in edges.values() for _, uid in rows)
    for number, why in chosen.items():
        rows = edges[number]
        nearest = rows[:_EDGE_ROWS]
        farthest = rows[max(len(nearest), len(rows) - _EDGE_ROWS) :][::-1]
        views = [[tiles.tile(uid, note=f"{cosine:.3f}") for cosine, uid in side] for side in (nearest, farthest)]
        size, mean = int(clusters.size[number]), float(clusters.mean_cosine[number])
        yield ClusterView(number, why, size, mean, *views)


def _edges(store: Store, extent: Extent, numbers: list[int]) -> dict[int, list[tuple[float, str]]]:
    """Of each cluster, the rows nearest to and farthest from the centroid as (cosine, uid), nearest first."""
    found: dict[int, list[tuple[float, str]]] = {number: [] for number in numbers}
    for shard in extent.shards:
        table = store.table("cluster", shard, ["uid", "cluster", "centroid_cosine"])
        table = table.filter(pc.is_in(table.column("cluster"), pa.array(numbers, pa.int32())))
        for row in table.to_pylist():
            found[row["cluster"]].append((row["centroid_cosine"], row["uid"]))
        for number, rows in found.items():
            rows.sort(key=lambda row: (-row[0], row[1]))
            found[number] = rows if len(rows) <= 2 * _EDGE_ROWS else rows[:_EDGE_ROWS] + rows[-_EDGE_ROWS:]
    return found


def weights_of(clusters: Clusters) -> Iterator[tuple[int, int, float]]:
    """Clusters above one, two, five, ten times the mean size: (least size, how many, their share of the rows)."""
    size = clusters.size[clusters.size > 0]
    for factor in (1, 2, 5, 10):
        above = size > factor * size.mean()
        if above.any():
            yield int(factor * size.mean()) + 1, int(above.sum()), float(size[above].sum() / size.sum())
