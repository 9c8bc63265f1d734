"""What a user can say about clustering."""

import itertools

from pydantic import Field, model_validator

from schemas.section import StageSection
from stages.curate.kmeans import EngineName


class ClusterSection(StageSection):
    """k-means; the paper gives k alone, the other defaults are those of SemDeDup's code and of FAISS."""

    k: int = Field(50_000, ge=1, description="centroids (DenseFusion section 3.1)")
    levels: list[int] = Field(
        [],
        description="centroids of the levels above k, from the top, each more than the one before: hierarchical "
        "k-means, for k in the millions; the rows of each centroid are split into its share of the next level. Empty "
        "clusters all rows at once",
    )
    probes: int = Field(
        8,
        ge=1,
        description="with levels: a row is held against the centroids under so many of its nearest ones in the level "
        "above; more find the nearest of all for more rows, and cost as much more",
    )
    neighbours: int = Field(
        8,
        ge=1,
        le=64,
        description="nearest centroids noted for each row, its own first; dedup's border search uses them",
    )
    min_rows_per_centroid: int = Field(
        10,
        ge=1,
        description="where rows are fewer than k times this, k becomes rows // this (at least 1), in the metrics; "
        "levels that are no longer below k are left out",
    )
    engine: EngineName = Field(
        "torch",
        description="of training. torch: half-precision products, after two iterations only with the 64 centroids "
        "nearest to each row's own; several times as fast as faiss, the more so the larger k, for an objective "
        "(1 - cosine) at most 1 % worse (python -m benchmarks.curation). faiss: float32 products with all centroids",
    )
    iterations: int = Field(100, ge=1, description="Lloyd iterations at most; SemDeDup's clustering uses 100")
    tolerance: float = Field(
        1e-4,
        ge=0,
        lt=1,
        description="training ends where an iteration takes less than this share off the objective's distance to 1; "
        "0 goes on until nothing is gained",
    )
    train_rows_per_centroid: int = Field(
        256, ge=1, description="most rows per centroid that training sees, drawn by uid and seed; FAISS' own default"
    )
    nredo: int = Field(1, ge=1, description="independent starts, the best objective wins")
    seed: int = Field(1234, ge=0, lt=2**31, description="of the training draw and of the first centroids; SemDeDup's")

    @model_validator(mode="after")
    def _from_the_top(self) -> "ClusterSection":
        counts = [0, *self.levels, self.k]
        if any(a >= b for a, b in itertools.pairwise(counts)):
            raise ValueError(f"levels ({self.levels}) must rise from the top, from 1 or more to less than k ({self.k})")
        return self

    @property
    def threads(self) -> int:
        """Of one worker."""
        return max(1, int(self.resources.cpus))
