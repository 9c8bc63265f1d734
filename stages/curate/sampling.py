"""Which rows are taken: caps on groups, and an order of taking that spreads any number of rows evenly over clusters."""

from dataclasses import dataclass

import numpy as np

from stages.curate.ranking import places_within


@dataclass(frozen=True)
class Cap:
    """What a cap on groups of rows says.

    Attributes:
        most: rows of a group that stay; None cuts nothing.
        place: of each row in its group, int32 of (n,); -1 for rows that the cap does not see.
        size: rows of each group that it sees, int64.
        cut: bool of (n,).
    """

    most: int | None
    place: np.ndarray
    size: np.ndarray
    cut: np.ndarray


def capped(order: np.ndarray, groups: np.ndarray, most: int | None) -> Cap:
    """Cuts all but the first rows of every group.

    Args:
        order: the row numbers that the cap sees.
        groups: group number of each row.
    """
    place = places_within(order, groups)
    cut = np.zeros(len(place), bool) if most is None else place >= most
    return Cap(most, place, np.bincount(groups[order]), cut)


@dataclass(frozen=True)
class Taking:
    """How rows are taken, whatever their number.

    Attributes:
        rank: in the cluster, from 0, int32 of (n,).
        domains: the cap on domains, which comes first; None where there is none.
        clusters: the cap on clusters, among what the first one left.
        place: in the order of taking, int64 of (n,); -1 where a cap cut the row.
    """

    rank: np.ndarray
    domains: Cap | None
    clusters: Cap
    place: np.ndarray

    @property
    def left(self) -> int:
        """Rows that no cap cut."""
        return int((self.place >= 0).sum())


def taking(
    order: np.ndarray,
    cluster: np.ndarray,
    ties: np.ndarray,
    parents: np.ndarray,
    per_cluster: int | None = None,
    domain: np.ndarray | None = None,
    per_domain: int | None = None,
) -> Taking:
    """Rank inside clusters, cap domains, cap clusters, and put what is left in the order of taking.

    A domain keeps its rows of the best rank in their clusters; rows below them in a cluster move up.

    Args:
        order: all row numbers by the ranking key.
        cluster: int32 of (n,).
        ties: all row numbers; among rows with equal claims, the first here goes first.
        parents: as for `taking_order`.
        domain: int32 of (n,), -1 for rows without one.
    """
    rank = places_within(order, cluster)
    domains = None
    if domain is not None:
        best = in_turns(rank, ties)
        domains = capped(best[domain[best] >= 0], domain, per_domain)
        order = order[~domains.cut[order]]
    clusters = capped(order, cluster, per_cluster)
    stays = (clusters.place >= 0) & ~clusters.cut
    turns = taking_order(clusters.place, cluster, ties[stays[ties]], parents)
    place = np.full(len(rank), -1, np.int64)
    place[turns] = np.arange(len(turns))
    return Taking(rank, domains, clusters, place)


def taking_order(rank: np.ndarray, cluster: np.ndarray, ties: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """The rows of `ties` in the order in which they are taken.

    The first T of them are split over the groups at the top of the tree as evenly as sizes allow: with c the largest
    number for which sum(min(c, size)) <= T, a group gives all it has where that is at most c, and else c, or c + 1
    where rows remain. Each group's share is split over the groups below it in the same way, and a cluster gives its
    rows by rank. That is the hierarchical sampling of Vo et al. (2024), "Automatic data curation for self-supervised
    learning: a clustering-based approach", without the search for c: taking turns meets every T exactly, and the sample
    of each T holds those of all smaller ones.

    Args:
        rank: place of each row in its cluster, from 0, without gaps among the rows of `ties`; int32 of (n,).
        cluster: int32 of (n,).
        ties: row numbers; among rows whose turn it is at once, the first here goes first.
        parents: the group of every cluster at each level above, from the top; int32 of (clusters, levels above).
    """
    turn = rank
    for groups in parents.T[::-1]:
        turn = places_within(in_turns(turn, ties), groups[cluster])
    return in_turns(turn, ties)


def in_turns(turn: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """The rows of `ties` by their turn, those of one turn as they stand there."""
    packed = turn[ties].astype(np.int64) << 32
    packed |= np.arange(len(ties))
    packed.sort()
    return ties[packed & (2**32 - 1)]
