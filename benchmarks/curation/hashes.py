"""Perceptual hashes within a Hamming radius: do the right rows stay, and the rate against FAISS' binary indexes."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.comparison import compare
from benchmarks.curation.figure import Figure
from stages.curate.perceptual import earliest_near, perceptual_duplicates

RADIUS = 6
SECONDS = 300.0
"""What "minutes on two cores" may be, for a million hashes."""
COPIES, PLACEHOLDER = 0.15, 0.3  # of all rows: near copies of other rows, and one image with its re-encodings
SAMPLED = 1000


def measure(quick: bool) -> list[Figure]:
    rows, queries = (20_000, 2_000) if quick else (1_000_000, 100_000)
    hashes = planted(rows, seed=11)
    before = time.process_time()
    by, _ = perceptual_duplicates(hashes, RADIUS)
    seconds = time.process_time() - before
    near, wrong = held_against_brute_force(hashes, by)
    distinct = np.random.default_rng(12).integers(0, 2**64, rows // 4 + queries, dtype=np.uint64)
    base, asked = distinct[queries:], _flipped(distinct[:queries], 1)
    asked[::10] = _flipped(base[: len(asked[::10])], 3)
    size = f"{rows:,} hashes, radius {RADIUS}"
    planting = (
        f"{COPIES:.0%} near copies, {PLACEHOLDER:.0%} one image and its re-encodings; {int((by >= 0).sum()):,} rows go"
    )
    against = f"{len(asked):,} looked for among {len(base):,}"
    return [
        Figure(f"CPU time, {size}", seconds, None if quick else SECONDS, at_most=True, unit="s", note=planting),
        Figure(
            f"recall of sampled rows, {size}",
            float((by[near] >= 0).mean()),
            1.0,
            against="brute force",
            exact=True,
            note=f"{len(near)} of {min(SAMPLED, rows)} sampled rows lie near an earlier kept one",
        ),
        Figure(f"sampled rows with another verdict, {size}", wrong, 0, at_most=True, against="brute force", exact=True),
        _ratio(base, asked, against, "FAISS IndexBinaryFlat, all with all", _flat),
        _ratio(
            base, asked, against, "FAISS IndexBinaryMultiHash, 4 x 16 bits, one flip: exact at radius 6", _multi_hash
        ),
    ]


def planted(rows: int, seed: int) -> np.ndarray:
    """Hashes in random order: images, near copies of them, and one group of equal and nearly equal ones; uint64."""
    rng = np.random.default_rng(seed)
    copies, group = int(COPIES * rows), int(PLACEHOLDER * rows)
    images = rng.integers(0, 2**64, rows - copies - group, dtype=np.uint64)
    near = _flipped(rng.choice(images, copies), RADIUS, seed + 1)
    placeholder = _flipped(np.repeat(images[:1], group), RADIUS, seed + 2)
    hashes = np.concatenate([images, near, placeholder])
    rng.shuffle(hashes)
    return hashes


def _flipped(hashes: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Each hash with up to `most` of its bits turned."""
    rng = np.random.default_rng(seed)
    hashes = hashes.copy()
    for _ in range(most):
        turned = rng.random(len(hashes)) < 0.7
        hashes[turned] ^= np.uint64(1) << rng.integers(0, 64, int(turned.sum()), dtype=np.uint64)
    return hashes


def held_against_brute_force(hashes: np.ndarray, by: np.ndarray) -> tuple[np.ndarray, int]:
    """Each sampled row compared with every earlier row that was kept.

    Returns:
        The sampled rows which have one of those within the radius, and how many sampled rows have another verdict than
        the earliest of those (or than to be kept, where there is none).
    """
    sampled = np.random.default_rng(13).permutation(len(hashes))[:SAMPLED]
    kept = np.flatnonzero(by < 0)
    want = np.full(len(sampled), -1)
    for place, row in enumerate(sampled.tolist()):
        close = np.bitwise_count(hashes[kept[: np.searchsorted(kept, row)]] ^ hashes[row]) <= RADIUS
        if close.any():
            want[place] = kept[close.argmax()]
    return sampled[want >= 0], int((want != by[sampled]).sum())


def _ratio(
    base: np.ndarray,
    asked: np.ndarray,
    size: str,
    name: str,
    peer: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Figure:
    rounds = compare(
        lambda: lambda: earliest_near(asked, base, RADIUS),
        lambda: lambda: peer(asked, base),
        np.array_equal,
        rounds=3,
    )
    ratio = statistics.median(r.cpu_ratio for r in rounds)
    return Figure(f"speed of the search, {size}", ratio, unit="x", against=name, note="index built and asked by both")


def _flat(asked: np.ndarray, base: np.ndarray) -> np.ndarray:
    import faiss

    return _asked(faiss.IndexBinaryFlat(64), asked, base)


def _multi_hash(asked: np.ndarray, base: np.ndarray) -> np.ndarray:
    import faiss

    index = faiss.IndexBinaryMultiHash(64, 4, 16)
    index.nflip = 1
    return _asked(index, asked, base)


def _asked(index: object, asked: np.ndarray, base: np.ndarray) -> np.ndarray:
    """The first place within the radius for each hash, -1 where there is none."""
    import faiss

    faiss.omp_set_num_threads(1)
    index.add(_bytes(base))  # type: ignore[attr-defined]
    # a FAISS range holds the distances below it
    limits, _, places = index.range_search(_bytes(asked), RADIUS + 1)  # type: ignore[attr-defined]
    found = np.full(len(asked), len(base))
    np.minimum.at(found, np.repeat(np.arange(len(asked)), np.diff(limits.astype(np.int64))), places)
    return np.where(found == len(base), -1, found)


def _bytes(hashes: np.ndarray) -> np.ndarray:
    return hashes.view(np.uint8).reshape(-1, 8)
