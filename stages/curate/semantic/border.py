"""Which rows are compared in further clusters: those near enough to the border of one that a copy may lie across it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.curate.vectors import Vectors

Border = Literal["none", "margin", "exact"]

_BLOCK = 1 << 22
"""Cosines of rows to centroids held at once, float32."""
_PAIRS = 256
"""Pairs of centroids taken apart at once; so many stay in a core's cache."""


@dataclass(frozen=True)
class Visits:
    """Which rows are also compared in which clusters.

    Attributes:
        rows: row numbers, cluster after cluster and ascending in each; int64 of (m,).
        starts: where the visitors of each cluster begin in `rows`; int64 of (k + 1,).
    """

    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray, clusters: np.ndarray, k: int) -> "Visits":
        """Visits of rows to clusters, integers of (m,), in any order, each once."""
        n = int(rows.max(initial=0)) + 1
        return cls.of_keys(np.sort(clusters.astype(np.int64) * n + rows), n, k)

    @classmethod
    def of_keys(cls, keys: np.ndarray, n: int, k: int) -> "Visits":
        """Visits of n rows to k clusters, each as cluster * n + row, ascending."""
        return cls(keys % n, np.searchsorted(keys, np.arange(k + 1) * n))

    @classmethod
    def none(cls, k: int) -> "Visits":
        return cls(np.empty(0, np.int64), np.zeros(k + 1, np.int64))

    def to(self, cluster: int) -> np.ndarray:
        """The visitors of one cluster."""
        return self.rows[self.starts[cluster] : self.starts[cluster + 1]]


def margin_visits(
    clusters: np.ndarray,
    cosines: np.ndarray,
    near_clusters: np.ndarray,
    near_cosines: np.ndarray,
    centroids: np.ndarray,
    margin: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose distance to the plane midway between their own and a further centroid is at most `margin`.

    The distance is (s1 - sp) / |c1 - cp|, of the row's cosines to the two centroids. A row across that plane lies
    farther off than that, so no copy does where the distance is above sin(acos(tau)); as the way from a row to its copy
    rarely leads straight at the border, a small part of that finds nearly all.

    Args:
        clusters, cosines: each row's own centroid and the cosine to it, (n,).
        near_clusters, near_cosines: the next ones, (n, m).
        centroids: float32 of (k, d).

    Returns:
        Row numbers and the clusters they visit, int64 of (visits,). Rows with NaN among their cosines visit nothing.
    """
    gap = cosines[:, None].astype(np.float64) - near_cosines
    # centroids are at most 2 apart
    rows, places = np.nonzero((gap <= 2 * margin) & (near_clusters != clusters[:, None]))
    own, further = clusters[rows].astype(np.int64), near_clusters[rows, places].astype(np.int64)
    apart = _distances(own, further, centroids)
    near = gap[rows, places] <= margin * apart
    return rows[near], further[near]


def _distances(one: np.ndarray, other: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Distance of each pair of centroids, float64 of (pairs,); each pair that occurs is computed once."""
    pairs, inverse = np.unique(one * len(centroids) + other, return_inverse=True)
    square = np.empty(len(pairs))
    for start in range(0, len(pairs), _PAIRS):
        a, b = np.divmod(pairs[start : start + _PAIRS], len(centroids))
        across = centroids[a] - centroids[b]
        square[start : start + _PAIRS] = np.einsum("ij,ij->i", across, across)
    return np.sqrt(square)[inverse]


def overhang(vectors: Vectors, clusters: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """How much nearer to some other centroid the worst row of each cluster lies: the greatest difference of its cosines
    to its nearest centroid and to its own, 0 where all rows are with their nearest; float32 of (k,).

    Args:
        vectors: n rows.
        clusters: which each row belongs to, (n,).
        centroids: float32 of (k, d).
    """
    worst = np.zeros(len(centroids), np.float32)
    for rows in _blocks(vectors, centroids):
        cosines = vectors.unit(rows) @ centroids.T
        own = clusters[rows]
        np.maximum.at(worst, own, cosines.max(1) - cosines[np.arange(len(own)), own])
    return worst


def exact_visits(
    vectors: Vectors, clusters: np.ndarray, centroids: np.ndarray, worst: np.ndarray, tau: float
) -> tuple[np.ndarray, np.ndarray]:
    """Visits by which no pair of rows with a cosine above `tau` is missed; of two clusters the later's rows visit.

    Let x be a row, e its nearest centroid, b a cluster, and n = (e - b) / |e - b|. Every row y of b has y.e - y.b <= G,
    where G is what `overhang` found for b; so y.n <= g with g = G / |e - b|. Let h be x.n = (x.e - x.b) / |e - b|.
    For unit vectors with x.n = h >= g >= y.n the angle between x and y is at least asin(h) - asin(g): the points of the
    sphere with y.n <= g form a cap around -n whose edge lies acos(g) from n, while x lies acos(h) from n. So y cannot
    be close to x, and x need not visit b, where asin(h) - asin(g) >= acos(tau). This asks nothing of how the rows were
    assigned and nothing of the centroids: where every row is with its nearest, G = 0 and the test is the half-space
    test h >= sin(acos(tau)); an assignment by routing only makes it looser.

    A close pair passes the test from both of its rows, so it is enough that the rows of the later cluster visit the
    earlier one.

    Rounding: a float32 dot product of unit vectors of d elements, summed in any order, is off by at most
    (d + 2) 2^-24 (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1), and a stored scale makes a length of
    1 +- d 2^-24 at most. `slack` is more than twice the sum of both; it is taken from h, added to g, and tau is lowered
    by it.

    Args:
        vectors: n rows; those without a direction visit nothing, as nothing is close to them.
        clusters: which each row belongs to, (n,).
        centroids: float32 of (k, d), of length 1 or less.
        worst: from `overhang` over all rows, float32 of (k,).
        tau: cosine, at least 0.

    Returns:
        Row numbers and the clusters they visit, int64 of (visits,).
    """
    slack = (centroids.shape[1] + 16) * 2.0**-21
    angle = np.arccos(np.clip(tau - slack, -1, 1))
    rows_found, clusters_found = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for rows in _blocks(vectors, centroids):
        cosines = vectors.unit(rows) @ centroids.T
        nearest = cosines.argmax(1)
        used, which = np.unique(nearest, return_inverse=True)
        apart = _all_distances(centroids[used], centroids)
        with np.errstate(divide="ignore", invalid="ignore"):
            edge = (
                np.arcsin((worst + slack) / apart) + angle
            )  # NaN where the overhang reaches beyond the other centroid
        # how far below the nearest centroid's the cosine to b must lie; infinite where nothing is far enough
        below = np.where(edge < np.pi / 2, np.sin(edge) * apart + slack, np.inf).astype(np.float32)
        greatest = cosines[np.arange(len(nearest)), nearest]
        own = clusters[rows]
        doubt = (cosines >= greatest[:, None] - below[which]) & (np.arange(len(centroids)) < own[:, None])
        doubt[vectors.scale[rows] == 0] = False
        at, visited = np.nonzero(doubt)
        rows_found.append(at + rows.start)
        clusters_found.append(visited)
    return np.concatenate(rows_found), np.concatenate(clusters_found)


def _blocks(vectors: Vectors, centroids: np.ndarray) -> list[slice]:
    step = max(1, _BLOCK // max(centroids.shape))
    return [slice(start, min(start + step, len(vectors))) for start in range(0, len(vectors), step)]


def _all_distances(some: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """float64 of (some, k); differences of equal centroids are exactly 0 or below the slack."""
    a, b = some.astype(np.float64), centroids.astype(np.float64)
    square = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0))
