"""Trainings in files: what was trained, and states under way, so that a kill costs one iteration."""

import time
from pathlib import Path

import numpy as np

from stages.curate.kmeans.train import State, Trained
from stages.kept import kept_file

APART = 1.0
"""Seconds: states that follow sooner are not worth a file."""


def save_trained(path: Path, trained: list[Trained]) -> None:
    """Write trainings (at least one, of one width) as one .npz."""
    np.savez(
        path,
        centroids=np.concatenate([one.centroids for one in trained]),
        labels=np.concatenate([one.labels for one in trained]),
        objective=np.concatenate([np.asarray(one.objective, np.float64) for one in trained]),
        sizes=np.array([(len(t.centroids), len(t.labels), len(t.objective), t.reseeded) for t in trained], np.int64),
    )


def load_trained(path: Path) -> list[Trained]:
    with np.load(path) as held:
        sizes = held["sizes"]
        cuts = sizes[:-1, :3].cumsum(axis=0)
        parts = [np.split(held[name], cuts[:, i]) for i, name in enumerate(("centroids", "labels", "objective"))]
    return [
        Trained(centroids, labels, tuple(objective.tolist()), int(reseeded))
        for centroids, labels, objective, reseeded in zip(*parts, sizes[:, 3], strict=True)
    ]


class Checkpoint:
    """The latest state of one training, `NAME.<start>.<iteration>.npz` in a folder.

    Args:
        apart: seconds between two files at least.
    """

    def __init__(self, folder: Path, name: str, apart: float = APART) -> None:
        self._folder, self._name, self._apart = folder, name, apart
        self._saved = time.monotonic()

    def load(self) -> State | None:
        """None where nothing was saved."""
        files = self._files()
        if not files:
            return None
        start, iteration = (int(part) for part in files[-1].stem.split(".")[-2:])
        trained = load_trained(files[-1])
        now = trained.pop(0) if iteration else None
        return State(start, now, trained[0] if trained else None)

    def save(self, state: State) -> None:
        """Where the last time is long enough ago; in place of the state before."""
        if time.monotonic() - self._saved < self._apart:
            return
        before = self._files()
        iteration = len(state.now.objective) if state.now else 0
        path = self._folder / f"{self._name}.{state.start:04d}.{iteration:06d}.npz"
        trained = [one for one in (state.now, state.best) if one]
        kept_file(path, lambda temporary: save_trained(temporary, trained))
        for old in before:
            if old != path:
                old.unlink()
        self._saved = time.monotonic()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._name}.[0-9]*.[0-9]*.npz"))
