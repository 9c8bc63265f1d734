"""Perceptual duplicates: 64-bit hashes within a Hamming radius."""

import itertools

import numpy as np

_BITS = 64


def perceptual_duplicates(hashes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Greedy, in keep order: a row goes when a row that is kept lies within `radius` bits of it.

    Rows that went suppress nobody, so every removed row has a kept one within the radius. Two hashes that differ in at
    most `radius` bits agree on one of `radius + 1` bands: only rows that share a band are compared.

    Args:
        hashes: uint64 of (n,).
        radius: bits, 0 to 63.

    Returns:
        The kept row that suppressed each row (int64 of (n,), -1 where the row is kept), and their distance in bits
        (int16 of (n,), 0 where kept).
    """
    values, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    # equal hashes share one fate, so each value is looked up once, where it first stands
    owner = np.empty(len(values), np.int64)
    distance = np.zeros(len(values), np.int16)
    edges = [_BITS * i // (radius + 1) for i in range(radius + 2)]
    bands = [(lo, (1 << (hi - lo)) - 1) for lo, hi in itertools.pairwise(edges)]
    kept: list[dict[int, list[tuple[int, int]]]] = [{} for _ in bands]
    for place in np.argsort(first):
        value, row = int(values[place]), int(first[place])
        keys = [(value >> shift) & mask for shift, mask in bands]
        near = min(
            (
                ((value ^ other).bit_count(), at)
                for table, key in zip(kept, keys, strict=True)
                for other, at in table.get(key, ())
            ),
            default=(_BITS + 1, row),
        )
        if near[0] <= radius:
            distance[place], owner[place] = near
            continue
        owner[place] = row
        for table, key in zip(kept, keys, strict=True):
            table.setdefault(key, []).append((value, row))
    by = owner[inverse]
    by[by == np.arange(len(hashes))] = -1
    return by, distance[inverse]
