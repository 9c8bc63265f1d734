"""The report's part on curation: did the right rows go, is the threshold right, what are the clusters."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report.charts import Histogram, histogram
from pipeline.report.clusters import ClusterView, cluster_views, weights_of
from pipeline.report.duplicates import Duplicates, duplicates_view, removed_rows
from pipeline.report.sweep_view import SweepView, sweep_view
from pipeline.report.tiles import Tiles
from pipeline.sample import Extent, clusters_of, draw, extent_of
from pipeline.store import Store
from pipeline.sweep import epsilons_with, further_columns
from stages.base import ImageSource
from stages.dedup import DedupSection

ROWS = 1_000_000
"""A run of more clustered rows than this is shown by shards drawn by seed; a smaller one is read whole."""

SAMPLE_ROWS = 20_000
"""Rows of the whole clusters whose vectors are compared."""


@dataclass(frozen=True)
class Curation:
    """The whole part.

    Attributes:
        duplicates: None before `dedup` is done.
        sweep: None where the run is too large to be read whole for it.
        cluster_sizes: as far as `extent` shows them.
        weights: (least size, clusters above it, share of the rows in them).
    """

    extent: Extent
    config: DedupSection
    duplicates: Duplicates | None
    sweep: SweepView | None
    clusters: list[ClusterView]
    cluster_sizes: Histogram
    weights: list[tuple[int, int, float]]


def curation(
    store: Store, images: ImageSource, config: DedupSection, deduplicated: bool, metrics: Mapping[str, float]
) -> Curation | None:
    """The part for a run whose `cluster` is done; None where it holds no rows.

    Args:
        deduplicated: whether `dedup` is done, too.
        metrics: of `dedup`.
    """
    extent = extent_of(store, ROWS)
    if not extent.rows:
        return None
    clusters = clusters_of(store, extent)
    sample = draw(store, extent, clusters, SAMPLE_ROWS, further_columns(config))
    tiles = Tiles(store, images, extent.shards)
    removed = removed_rows(store, extent) if deduplicated else None
    return Curation(
        extent=extent,
        config=config,
        duplicates=duplicates_view(tiles, removed, sample, config, metrics) if removed is not None else None,
        sweep=sweep_view(sample, config, epsilons_with(config.epsilon)) if extent.whole and len(sample) else None,
        clusters=list(cluster_views(store, extent, tiles, clusters)),
        cluster_sizes=histogram(clusters.size[clusters.present]),
        weights=list(weights_of(clusters)),
    )
