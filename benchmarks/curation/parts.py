"""What the curation benchmark consists of: a module beside this one for each part."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A module with `measure(quick) -> list[Figure]`.

    Attributes:
        title: of its table.
        method: what a reader must know of how its figures came about, in Markdown.
    """

    title: str
    method: str


PARTS = {
    "kernel": Part(
        "duplicates inside clusters",
        "200,000 planted rows of width 512 under few or many centroids. The official rule is our rendering of "
        "what SemDeDup's released code computes on a cluster: all cosines at once, the upper triangle, the greatest of "
        "each column. Rows whose greatest cosine lies within 1e-6 of the threshold are counted apart, as rounding "
        "decides them there. Lost images are planted distinct ones that have no kept row above the threshold.",
    ),
    "border": Part(
        "duplicates across clusters",
        "Truth is every pair above the threshold among all rows, by brute force. A copy is found where the search "
        "compared it with one of its copies; the residual is the share of kept rows that still have a kept row above "
        "the threshold. Cost is that of the whole search over that of the search inside clusters alone.",
    ),
    "kmeans": Part(
        "clustering and assignment",
        "FAISS' k-means (spherical, float32, one thread) and ours begin with the same rows and run ten iterations; "
        "worse is the relative growth of 1 - mean cosine. The machine's rate is that of one large bf16 product.",
    ),
    "ranking": Part(
        "the order inside clusters",
        "Against Python's `sorted` over tuples, as SemDeDup's code sorts each cluster, without its files.",
    ),
    "hashes": Part(
        "perceptual hashes",
        "64-bit hashes with planted near copies and one group of 300,000 alike; recall by brute force on a sample.",
    ),
    "growth": Part(
        "growth with the number of rows",
        "Rows double while rows per centroid stay; each size runs in a process of its own.",
    ),
    "embedding": Part(
        "embedding",
        "A ViT-B/32 with random weights on 2-megapixel JPEGs, the model on one thread and decoding on another; the "
        "bare loop gets pictures that are ready. Wall clock needs the second core free, so the CPU time of the model's "
        "own thread stands beside it.",
    ),
}
"""By the module's name, in the order of the page."""
