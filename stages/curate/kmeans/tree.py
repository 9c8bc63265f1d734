"""A tree of centroids: each level's groups are split into the centroids of the next, and rows are led down."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.curate.kmeans.assign import Nearest
from stages.curate.kmeans.pool import Map
from stages.curate.vectors import Vectors


def shares(rows: np.ndarray, k: int) -> np.ndarray:
    """How many of k centroids each group gets: one, and of the rest in proportion to its rows. int64 of (groups,).

    Args:
        rows: of each group.
        k: at least the number of groups.
    """
    rest = k - len(rows)
    ideal = rest * rows / max(rows.sum(), 1)
    given = np.floor(ideal).astype(np.int64)
    short = rest - int(given.sum())
    given[np.argsort(given - ideal, kind="stable")[:short]] += 1
    return given + 1


@dataclass(frozen=True)
class Tree:
    """Centroids in levels; a flat clustering is a tree of one.

    Attributes:
        levels: unit vectors, float32 of (centroids, d), from the top; the last are those that rows are given to.
        bounds: for each level but the last, int64 of (centroids + 1,): the children of centroid i are the next level's
            centroids bounds[i] to bounds[i + 1].
    """

    levels: tuple[np.ndarray, ...]
    bounds: tuple[np.ndarray, ...] = ()

    def save(self, path: Path) -> None:
        """As an .npz."""
        arrays: dict[str, Any] = {f"level{i}": level for i, level in enumerate(self.levels)}
        arrays |= {f"bounds{i}": bounds for i, bounds in enumerate(self.bounds)}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Tree":
        with np.load(path) as held:
            count = sum(name.startswith("level") for name in held)
            levels = tuple(held[f"level{i}"] for i in range(count))
            return cls(levels, tuple(held[f"bounds{i}"] for i in range(count - 1)))

    def parents(self) -> np.ndarray:
        """The number of each last centroid's ancestor in each level above, from the top: int32 of (k, levels - 1)."""
        above = np.arange(len(self.levels[-1]))
        columns = []
        for bounds in reversed(self.bounds):
            above = np.searchsorted(bounds, above, side="right") - 1
            columns.append(above)
        return np.stack(columns[::-1], axis=1).astype(np.int32) if columns else np.empty((len(above), 0), np.int32)

    def search(
        self, vectors: Vectors, m: int, probes: int, device: str = "cpu", run: Map = map
    ) -> tuple[np.ndarray, np.ndarray]:
        """The m last centroids nearest to each row, best first.

        In a tree of several levels, of those under the row's nearest centroids of the level above, `probes` of them,
        which are looked for in the same way. Cosines of different parents compare as float32. What is looked for is
        found exactly (`Nearest`).

        Returns:
            Numbers (int32; -1 where fewer than m were looked at) and cosines (float32, 0 there), both of
            (n, min(m, k)).
        """
        last = len(self.levels) - 1
        found, cosines = Nearest(self.levels[0], device, run).search(vectors, m if last == 0 else probes)
        for level, bounds in enumerate(self.bounds, 1):
            wanted = min(m if level == last else probes, len(self.levels[level]))
            found, cosines = self._below(vectors, found, self.levels[level], bounds, wanted, device, run)
        return found, cosines.astype(np.float32)

    def _below(
        self,
        vectors: Vectors,
        above: np.ndarray,
        centroids: np.ndarray,
        bounds: np.ndarray,
        m: int,
        device: str,
        run: Map,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of the children of each row's centroids `above` (-1 is none), the m nearest."""
        best = np.full((len(vectors), m), -1, np.int32)
        cosines = np.full((len(vectors), m), -np.inf)
        order = np.argsort(above, axis=None, kind="stable")
        parents = above.reshape(-1)[order]
        groups = np.split(order // above.shape[1], np.flatnonzero(np.diff(parents)) + 1)
        for parent, rows in zip(np.unique(parents).tolist(), groups, strict=True):
            if parent < 0 or len(rows) == 0:
                continue
            children = slice(int(bounds[parent]), int(bounds[parent + 1]))
            number, cosine = Nearest(centroids[children], device, run).search(vectors.take(rows), m)
            # Parents come in order of number, so a stable sort leaves the lower number first among equals.
            every = np.concatenate([cosines[rows], cosine], axis=1)
            numbers = np.concatenate([best[rows], number + np.int32(children.start)], axis=1)
            first = np.argsort(-every, axis=1, kind="stable")[:, :m]
            best[rows], cosines[rows] = np.take_along_axis(numbers, first, 1), np.take_along_axis(every, first, 1)
        cosines[best < 0] = 0
        return best, cosines
