"""The centroids of all levels, from the top; each level but the first in pieces that workers share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base import GatherInput
from stages.cluster.section import ClusterSection
from stages.curate.kmeans import Trained, Tree, make_engine, shares, single_threads, train
from stages.curate.kmeans.checkpoint import Checkpoint, load_trained, save_trained
from stages.kept import kept_array, kept_file

SPLIT_ROWS = 1 << 18
"""Training rows of the groups that are split as one piece of work, about."""
SAMPLE = "sample.npy"


@dataclass(frozen=True)
class _Split:
    """Groups of one level, whose rows train some centroids of the next.

    Attributes:
        level: of the centroids to be made, 1 or more.
        first: number of the first group.
        ends: where the groups begin in the training rows ordered by group, and where the last one ends.
        share: centroids of each group.
    """

    config: ClusterSection
    level: int
    first: int
    ends: tuple[int, ...]
    share: tuple[int, ...]


def train_tree(inputs: GatherInput, config: ClusterSection, counts: list[int]) -> tuple[Tree, list[Trained]]:
    """Centroids of each level, and how their training went.

    Args:
        inputs: its kept folder holds the training rows, SAMPLE.
        counts: centroids of each level, from the top.
    """

    def top(path: Path) -> None:
        rows = np.load(inputs.kept / SAMPLE, mmap_mode="r")
        save_trained(path, [_fit(config, rows, counts[0], (config.seed,), Checkpoint(inputs.kept, "state"))])

    trained = load_trained(kept_file(inputs.kept / "level0.npz", top))
    bounds: list[np.ndarray] = []
    for level, k in enumerate(counts[1:], 1):
        above = trained[-1]
        sizes = np.bincount(above.labels, minlength=len(above.centroids))
        share = shares(sizes, k)
        order = kept_array(inputs.kept / f"order{level}.npy", lambda a=above: np.argsort(a.labels, kind="stable"))  # type: ignore[misc]
        kept_array(inputs.kept / f"above{level}.npy", lambda a=above: a.centroids)  # type: ignore[misc]
        items = _splits(config, level, np.append(0, sizes.cumsum()), share)
        groups = [group for path in inputs.spread(_split, items) for group in load_trained(path)]
        bounds.append(np.append(0, share.cumsum()))
        trained.append(_joined(groups, order, bounds[-1]))
    return Tree(tuple(level.centroids for level in trained), tuple(bounds)), trained


def _fit(
    config: ClusterSection, rows: np.ndarray, k: int, seed: tuple[int, ...], checkpoint: Checkpoint | None = None
) -> Trained:
    with single_threads(config.threads) as run:
        return train(
            make_engine(config.engine, rows, config.resources.device, run),
            k,
            iterations=config.iterations,
            seed=seed,
            starts=config.nredo,
            tolerance=config.tolerance,
            state=checkpoint.load() if checkpoint else None,
            keep=checkpoint.save if checkpoint else lambda state: None,
        )


def _splits(config: ClusterSection, level: int, ends: np.ndarray, share: np.ndarray) -> list[_Split]:
    cuts = np.flatnonzero(np.diff(ends[:-1] // SPLIT_ROWS, prepend=-1)).tolist()
    return [
        _Split(config, level, a, tuple(ends[a : b + 1].tolist()), tuple(share[a:b].tolist()))
        for a, b in zip(cuts, [*cuts[1:], len(share)], strict=True)
    ]


def _split(inputs: GatherInput, item: _Split) -> Path:
    """Trains the centroids of some groups, each on its own rows; where they lie."""

    def write(path: Path) -> None:
        rows = np.load(inputs.kept / SAMPLE, mmap_mode="r")
        order = np.load(inputs.kept / f"order{item.level}.npy", mmap_mode="r")
        above = np.load(inputs.kept / f"above{item.level}.npy", mmap_mode="r")
        groups = []
        for number, (k, first, stop) in enumerate(
            zip(item.share, item.ends[:-1], item.ends[1:], strict=True), item.first
        ):
            if first == stop:
                groups.append(Trained(np.repeat(above[number : number + 1], k, axis=0), np.empty(0, np.int32)))
            else:
                groups.append(_fit(item.config, rows[order[first:stop]], k, (item.config.seed, item.level, number)))
        save_trained(path, groups)

    return kept_file(inputs.kept / f"level{item.level}.{item.first:07d}.npz", write)


def _joined(groups: list[Trained], order: np.ndarray, bounds: np.ndarray) -> Trained:
    """The groups of one level as if they had been trained as one; a group that ends early stands still."""
    labels = np.empty(len(order), np.int32)
    if len(order):
        labels[order] = np.concatenate([g.labels + first for g, first in zip(groups, bounds[:-1], strict=True)])
    objective = np.zeros(max(len(group.objective) for group in groups))
    for group in groups:
        if group.objective:
            late = len(objective) - len(group.objective)
            objective += len(group.labels) / len(order) * np.pad(group.objective, (0, late), "edge")
    centroids = np.concatenate([group.centroids for group in groups])
    return Trained(centroids, labels, tuple(objective.tolist()), sum(group.reseeded for group in groups))
