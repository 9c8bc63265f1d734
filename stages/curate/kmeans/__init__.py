"""Spherical k-means: training, exact assignment, and a tree of centroids for k in the millions."""

from stages.curate.kmeans.engine import EngineName, half_units, make_engine
from stages.curate.kmeans.pool import single_threads
from stages.curate.kmeans.sample import allowed_k, training_rows
from stages.curate.kmeans.train import State, Trained, train
from stages.curate.kmeans.tree import Tree, shares

__all__ = [
    "EngineName",
    "State",
    "Trained",
    "Tree",
    "allowed_k",
    "half_units",
    "make_engine",
    "shares",
    "single_threads",
    "train",
    "training_rows",
]
