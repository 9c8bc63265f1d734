"""Which rows stay before others of their group."""

from collections.abc import Callable

import numpy as np

from stages.curate.ranking import ranked, shuffled
from stages.dedup.section import DedupSection

Columns = Callable[[str, dict[str, str]], list[np.ndarray]]
"""Columns of a stage, as dtypes by name, for all rows; null numbers are NaN."""


def keep_order(config: DedupSection, uid: np.ndarray, columns: Columns) -> np.ndarray:
    """Row numbers, those first that stay before others of their group.

    Args:
        uid: of all rows, bytes of (n,).
        columns: of those rows, in the same order.
    """
    match config.keep:
        case "hard" | "easy":
            (key,) = columns("cluster", {"centroid_cosine": "f4"})
        case "resolution":
            width, height = columns("download", {"width": "i8", "height": "i8"})
            key = width * height
        case "aesthetic":
            (key,) = columns("ingest", {"aesthetic": "f4"})
        case "random":
            return shuffled(uid, config.seed)
    return ranked(key, uid, descending=config.keep != "hard")
