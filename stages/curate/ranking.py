"""Total orders over rows: a key, and the uid where keys tie, so that an order never depends on where rows lie."""

import numpy as np


def ranked(values: np.ndarray, uids: np.ndarray, descending: bool = False) -> np.ndarray:
    """Row numbers in order of value; NaN comes last either way, ties go by uid.

    Args:
        values: numbers of (n,).
        uids: 128-bit hex, bytes of (n,).
    """
    # lexsort's last key is the first to decide; NaN sorts behind every number
    return np.lexsort((uids, -values.astype(np.float64) if descending else values))


def shuffled(uids: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers in a pseudo-random order that uids and seed decide."""
    return np.lexsort((uids, shuffle_keys(uids, seed)))


def shuffle_keys(uids: np.ndarray, seed: int) -> np.ndarray:
    """uint64 of (n,): a pseudo-random key for every uid, different for every seed (splitmix64 of the first 64 bits).

    Args:
        uids: 128-bit hex, bytes of (n,).
    """
    x = np.array([int(uid[:16], 16) for uid in uids.tolist()], np.uint64)
    with np.errstate(over="ignore"):
        x += np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return x ^ (x >> np.uint64(31))


def places_within(order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each row's place, from 0, among the rows of its own group as they stand in `order` (int32 of (n,)).

    Args:
        order: row numbers, all of them.
        groups: group number of each row.
    """
    by_group = order[np.argsort(groups[order], kind="stable")]
    starts = np.flatnonzero(np.diff(groups[by_group], prepend=-1))
    lengths = np.diff(np.append(starts, len(by_group)))
    places = np.empty(len(order), np.int32)
    places[by_group] = np.arange(len(by_group)) - np.repeat(starts, lengths)
    return places
