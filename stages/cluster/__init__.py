"""`cluster`: spherical k-means over all vectors; every row gets its nearest centroids."""

from stages.cluster.section import ClusterSection
from stages.cluster.stage import ClusterStage

__all__ = ["ClusterSection", "ClusterStage"]
