"""How well clusters agree with classes."""

from collections import Counter
from collections.abc import Hashable, Sequence


def purity(clusters: Sequence[Hashable], classes: Sequence[Hashable]) -> float:
    """Share 0..1 of items that are of the most frequent class of their cluster (Manning et al., Introduction to
    Information Retrieval, 16.3).

    More clusters make it larger: 1 where every item has its own. Compare at one number of clusters only.

    Raises:
        ValueError: different numbers of items, or none.
    """
    if len(clusters) != len(classes) or not clusters:
        raise ValueError(
            f"{len(clusters)} items have a cluster and {len(classes)} a class; both need the same, above 0"
        )
    counts = Counter(zip(clusters, classes, strict=True))
    largest: dict[Hashable, int] = {}
    for (cluster, _), count in counts.items():
        largest[cluster] = max(largest.get(cluster, 0), count)
    return sum(largest.values()) / len(clusters)


def majority(classes: Sequence[Hashable]) -> float:
    """Share 0..1 of the most frequent class: the purity of one cluster that holds everything."""
    return purity([0] * len(classes), classes)
