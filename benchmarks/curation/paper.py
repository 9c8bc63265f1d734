"""What curation of 100 million and of a billion rows should take, by arithmetic from rates; nothing here was run."""

from dataclasses import dataclass
from typing import Any

WIDTH = 768
"""Of EVA02-L-14's vectors, the default of `embed.model`."""
CENTROIDS = 50_000
"""DenseFusion section 3.1."""
TRAINED_ON = 256 * CENTROIDS
FULL_ITERATIONS = 2
LOCAL_ITERATIONS = 8
NEIGHBOURS = 64
"""Centroids that a row is held against in a local iteration."""
IMBALANCE = 1.5
"""Mean of squared cluster sizes over the square of their mean; assumed, web data may have more."""
BORDER = 1.6
"""Cost of the border search in units of that inside clusters, as the part `border` measures it on the harder set."""
GPU_PEAK = 989e12
"""Dense bf16 FLOP/s of an H200, its data sheet."""
GPU_SHARE = 0.6
"""Of the peak that the matrix products are assumed to reach."""
STORAGE = 5e9
"""Bytes/s that a node of eight GPUs is assumed to read and write."""
GPUS_A_NODE = 8
PASSES = 4
"""Times that the fp16 rows are moved: read to assign, read and written to sort by cluster, read to compare."""


@dataclass(frozen=True)
class Estimate:
    """Seconds, were every step as fast as its rate.

    Attributes:
        train: k-means on its sample, on one GPU.
        assign: every row against every centroid.
        compare: pairs inside clusters, half of each square, and the border search.
        move: reading and writing the rows.
    """

    rows: int
    gpus: int
    train: float
    assign: float
    compare: float
    move: float

    def as_json(self) -> dict[str, Any]:
        return self.__dict__ | {"total": self.train + self.assign + self.compare + self.move}


def estimate(rows: int, gpus: int) -> Estimate:
    """Of clustering and de-duplicating `rows` unit vectors."""
    rate = GPU_PEAK * GPU_SHARE
    sample = min(rows, TRAINED_ON)
    dots = sample * (FULL_ITERATIONS * CENTROIDS + LOCAL_ITERATIONS * NEIGHBOURS)
    pairs = rows * (rows / CENTROIDS * IMBALANCE) / 2
    return Estimate(
        rows=rows,
        gpus=gpus,
        train=2 * WIDTH * dots / rate,
        assign=2 * WIDTH * rows * CENTROIDS / (rate * gpus),
        compare=2 * WIDTH * pairs * (1 + BORDER) / (rate * gpus),
        move=PASSES * rows * WIDTH * 2 / (STORAGE * max(1, gpus / GPUS_A_NODE)),
    )


def estimates() -> list[dict[str, Any]]:
    return [estimate(rows, gpus).as_json() for rows in (100_000_000, 1_000_000_000) for gpus in (8, 64)]
