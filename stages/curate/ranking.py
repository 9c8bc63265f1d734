"""Total orders over rows: a key, and the uid where keys tie, so that an order never depends on where rows lie."""

import numpy as np

_HEX = np.zeros(256, np.uint64)
_HEX[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def ranked(values: np.ndarray, uids: np.ndarray, descending: bool = False) -> np.ndarray:
    """Row numbers in order of value; NaN comes last either way, ties go by uid.

    Args:
        values: numbers of (n,).
        uids: 128-bit hex, bytes of (n,).
    """
    return sorted_by(-values.astype(np.result_type(values, np.float32)) if descending else values, uids)


def shuffled(uids: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers in a pseudo-random order that uids and seed decide."""
    return sorted_by(shuffle_keys(uids, seed), uids)


def shuffle_keys(uids: np.ndarray, seed: int) -> np.ndarray:
    """uint64 of (n,): a pseudo-random key for every uid, different for every seed (splitmix64 of the first 64 bits).

    Args:
        uids: 128-bit hex, bytes of (n,).
    """
    digits = _HEX[np.ascontiguousarray(uids).view(np.uint8).reshape(len(uids), 32)[:, :16]]
    x = np.bitwise_or.reduce(digits << np.arange(60, -1, -4, dtype=np.uint64), axis=1)
    with np.errstate(over="ignore"):
        x += np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return x ^ (x >> np.uint64(31))


def places_within(order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each row's place, from 0, among the rows of its own group as they stand in `order`.

    Args:
        order: row numbers, each at most once.
        groups: group number of each row, from 0 to 2^31.

    Returns:
        int32 of (n,); -1 for rows that are not in `order`.
    """
    places = np.full(len(groups), -1, np.int32)
    # group and place in one number: a plain sort of numbers is many times faster than a stable sort of their places
    packed = groups[order].astype(np.int64) << 32
    packed |= np.arange(len(order))
    packed.sort()
    by_group = order[packed & (2**32 - 1)]
    packed >>= 32
    starts = np.append(0, np.flatnonzero(packed[1:] != packed[:-1]) + 1)
    lengths = np.diff(np.append(starts, len(by_group)))
    places[by_group] = np.arange(len(by_group)) - np.repeat(starts, lengths)
    return places


def sorted_by(values: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Row numbers in order of value, and of text where values tie; NaN comes last.

    One plain sort of numbers where most values differ: text is looked at only for rows that tie, eight bytes at a time.

    Args:
        values: numbers of (n,).
        text: bytes of (n,), of a width that eight divides.
    """
    order = np.argsort(values)
    run = np.cumsum(_begins(values[order]))
    tied = np.arange(len(order))
    for word in range(text.dtype.itemsize // 8):
        alone = _begins(run)
        alone[:-1] &= alone[1:]
        tied, run = tied[~alone], run[~alone]
        if not len(tied):
            break
        rows = order[tied]
        # read as one big-endian number, eight bytes sort as the text does
        key = np.ascontiguousarray(text[rows]).view(">u8").reshape(len(rows), -1)[:, word].astype(np.uint64)
        by_key = np.lexsort((key, run))
        order[tied] = rows[by_key]
        run = np.cumsum(_begins(run) | _begins(key[by_key]))
    return order


def _begins(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before it; NaN does not differ from NaN."""
    differs = np.ones(len(values), bool)
    differs[1:] = (values[1:] != values[:-1]) & ~((values[1:] != values[1:]) & (values[:-1] != values[:-1]))
    return differs
