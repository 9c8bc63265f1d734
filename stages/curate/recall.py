"""How many copies a search found, by holding a sample of rows against everything."""

from dataclasses import dataclass

import numpy as np

from stages.curate.semantic.similarity import close_pairs
from stages.curate.vectors import Vectors

_CONFIDENT = 1.959964
"""Quantile of the normal distribution for two-sided 95 %."""


@dataclass(frozen=True)
class Share:
    """Some of so many, drawn at random.

    Attributes:
        some: how many.
        of: out of how many.
    """

    some: int
    of: int

    def interval(self) -> tuple[float, float]:
        """What holds the true share with 95 % (Wilson, "Probable inference, the law of succession, and statistical
        inference", 1927); 0 to 1 where nothing was drawn."""
        if self.of == 0:
            return 0.0, 1.0
        share, z = self.some / self.of, _CONFIDENT**2 / self.of
        middle = share + z / 2
        half = (share * (1 - share) * z + z * z / 4) ** 0.5
        return max(0.0, (middle - half) / (1 + z)), min(1.0, (middle + half) / (1 + z))


def against_everything(
    sample: Vectors,
    place: np.ndarray,
    vectors: Vectors,
    first: int,
    cluster: np.ndarray,
    kept: np.ndarray,
    visits: np.ndarray,
    tau: float,
    memory_mb: float = 100,
    device: str = "cpu",
) -> np.ndarray:
    """What each sampled row has among some of all rows: int64 of (m, 3).

    The columns are: rows whose cosine to it is strictly above `tau` (never itself), those of them that the search
    compared with it, and those of them that stay.

    Args:
        sample: m rows; `place` says which of all rows they are, int64 of (m,).
        vectors: some of all rows, from number `first` on.
        cluster, kept: of all n rows: the cluster of each, and whether it stays.
        visits: cluster * n + row, int64 and ascending, at least of the visits that sampled rows make and of those that
            are made to their clusters.
    """
    found = np.zeros((len(place), 3), np.int64)
    for a, b, _ in close_pairs(sample, vectors, tau, memory_mb, device):
        b = b + first
        apart = place[a] != b
        a, b = a[apart], b[apart]
        one, other = place[a], b
        compared = (cluster[one] == cluster[other]) | _visited(visits, one, cluster[other], len(cluster))
        compared |= _visited(visits, other, cluster[one], len(cluster))
        for column, which in enumerate((slice(None), compared, kept[other])):
            found[:, column] += np.bincount(a[which], minlength=len(place))
    return found


def _visited(visits: np.ndarray, rows: np.ndarray, clusters: np.ndarray, n: int) -> np.ndarray:
    keys = clusters.astype(np.int64) * n + rows
    at = np.searchsorted(visits, keys)
    return (at < len(visits)) & (np.append(visits, -1)[np.minimum(at, len(visits))] == keys)


@dataclass(frozen=True)
class Recall:
    """What the sample says about the search.

    Attributes:
        rows: of the sampled rows that have a close one anywhere, those that were compared with at least one such row.
        pairs: of the close pairs with one sampled row, those that were compared.
        residual: of the sampled rows that stay, those that still have a close one that stays.
    """

    rows: Share
    pairs: Share
    residual: Share

    @classmethod
    def of(cls, found: np.ndarray, stays: np.ndarray) -> "Recall":
        """From `against_everything`, summed over all rows, and whether each sampled row stays, bool of (m,)."""
        close, compared, staying = found.T
        return cls(
            Share(int((compared > 0).sum()), int((close > 0).sum())),
            Share(int(compared.sum()), int(close.sum())),
            Share(int((staying[stays] > 0).sum()), int(stays.sum())),
        )

    def metrics(self) -> dict[str, float]:
        """Shares as far as they are known, with the ends of their intervals, and the counts behind them.

        The pairs of one row are no independent draws, so their share has no interval.
        """
        out: dict[str, float] = {}
        for name, share in (("recall_rows", self.rows), ("recall_pairs", self.pairs), ("residual", self.residual)):
            out[f"{name}_of"] = share.of
            if share.of:
                out[name] = share.some / share.of
                if share is not self.pairs:
                    out[f"{name}_low"], out[f"{name}_high"] = share.interval()
        return out
