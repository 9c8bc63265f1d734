"""Where the vector of a key lies: sorted 128-bit hashes of the keys in a file that is memory-mapped."""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

_BUCKET_ROWS = 1 << 22


def key_hashes(keys: list[str]) -> np.ndarray:
    """uint64 of (len(keys), 2): blake2b-128 of each key's UTF-8, the high half first."""
    digests = b"".join(hashlib.blake2b(key.encode(errors="replace"), digest_size=16).digest() for key in keys)
    return np.frombuffer(digests, ">u8").reshape(-1, 2).astype(np.uint64)


def write_index(path: Path, keys: Iterable[list[str | None]], count: int) -> None:
    """Write the index of rows 0, 1, ..., whose keys come in batches; a row whose key is None is left out.

    uint64 of (3, rows) in .npy: both halves of the hash, and the row number, sorted by all three. A row takes 24 bytes
    of disk, twice while this works; memory does not grow with the rows (hashes go to buckets by their first bits, and
    a bucket of about four million rows is sorted at a time).

    Args:
        count: rows, at most.
    """
    bits = max(0, (count - 1) // _BUCKET_ROWS).bit_length()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, contextlib.ExitStack() as stack:
        buckets = [stack.enter_context((Path(folder) / f"{i}").open("wb+")) for i in range(1 << bits)]
        indexed = 0
        for records in _records(keys):
            bucket = np.zeros(len(records), np.int64) if bits == 0 else records[:, 0] >> np.uint64(64 - bits)
            for i in np.unique(bucket):
                records[bucket == i].tofile(buckets[int(i)])
            indexed += len(records)
        if indexed == 0:
            np.save(path, np.empty((3, 0), np.uint64))
            return
        out = np.lib.format.open_memmap(path, "w+", np.uint64, (3, indexed))
        start = 0
        for file in buckets:
            file.seek(0)
            records = np.fromfile(file, np.uint64).reshape(-1, 3)
            order = np.lexsort(records.T[::-1])
            out[:, start : start + len(records)] = records[order].T
            start += len(records)
        out.flush()


def find(index: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """int64 row number of each hash, the first row where several share a key; -1 where there is none.

    Args:
        index: as `write_index` wrote it, memory-mapped.
        hashes: from `key_hashes`.
    """
    high, low, rows = index
    out = np.full(len(hashes), -1, np.int64)
    if len(high) == 0:
        return out
    place = np.searchsorted(high, hashes[:, 0])
    while True:
        inside = np.minimum(place, len(high) - 1)
        same = (place < len(high)) & (high[inside] == hashes[:, 0])
        before = same & (low[inside] < hashes[:, 1])
        if not before.any():
            break
        place = place + before
    hit = same & (low[inside] == hashes[:, 1])
    out[hit] = rows[inside[hit]]
    return out


def _records(keys: Iterable[list[str | None]]) -> Iterator[np.ndarray]:
    """uint64 of (n, 3): high, low, row."""
    first = 0
    for batch in keys:
        rows = [i for i, key in enumerate(batch) if key is not None]
        if rows:
            hashes = key_hashes([key for key in batch if key is not None])
            yield np.column_stack([hashes, np.array(rows, np.uint64) + np.uint64(first)])
        first += len(batch)
