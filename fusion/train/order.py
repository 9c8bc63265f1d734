"""The order of rows: seed and epoch alone decide it, so that a resumed training sees the batches of an unbroken one."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

_GROUPED_BATCHES = 50
"""Batches among which rows are sorted by length (haotian-liu/LLaVA `llava/train/llava_trainer.py`)."""


class SeededOrder(Sampler[int]):
    """Rows in random order, another one each epoch.

    Every step has `batch_size` rows, whatever the number of processes: the last of an epoch is filled with the epoch's
    first rows again.

    Args:
        words: int32 (rows,), as `Source.words`.
        grouped: rows of like length into one batch, rows with pictures apart from those of text alone (LLaVA's
            grouping by modality length).
        batch_size: rows of one step over all processes and accumulation.
    """

    def __init__(self, words: np.ndarray, grouped: bool, batch_size: int, seed: int) -> None:
        self._words, self._grouped, self._batch_size, self._seed = words, grouped, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._words) // self._batch_size) * self._batch_size

    def __iter__(self) -> Iterator[int]:
        return iter(np.resize(self.rows(self._epoch), len(self)).tolist())

    def rows(self, epoch: int) -> np.ndarray:
        """int64 (rows,): every row once."""
        draw = np.random.default_rng([self._seed, epoch])
        if not self._grouped:
            return draw.permutation(len(self._words))
        batches, rest = [], []
        for rows in (np.flatnonzero(self._words >= 0), np.flatnonzero(self._words < 0)):
            own, left = self._batches(draw.permutation(rows))
            batches += own
            rest.append(left)
        mixed = [batches[place] for place in draw.permutation(len(batches))]
        return np.concatenate([*mixed, *rest]).astype(np.int64)

    def _batches(self, rows: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Batches of like length, longest first within each stretch, and what fills none."""
        stretch = self._batch_size * _GROUPED_BATCHES
        batches, left = [], rows[:0]
        for start in range(0, len(rows), stretch):
            part = rows[start : start + stretch]
            part = part[np.argsort(-np.abs(self._words[part]), kind="stable")]
            whole = len(part) // self._batch_size * self._batch_size
            batches += [part[at : at + self._batch_size] for at in range(0, whole, self._batch_size)]
            left = part[whole:]
        return batches, left
