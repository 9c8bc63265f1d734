"""Figures of clustering and of de-duplication."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from benchmarks.world.bench import Bench, Pictures, uid_of
from benchmarks.world.shots import Shot
from demo.metrics.clusters import majority, purity
from demo.metrics.copies import copy_figures, earlier_neighbours, found_above, threshold_for
from stages.curate.vectors import Vectors, vector_array

MOST_HIT = 0.01
"""The share of distinct scenes that may go because of another one."""
PLANTED = ("reencoded", "resized", "watermarked", "cropped")
"""The kinds of copies that have a target."""
HASH_BITS = 64


def curation_figures(bench: Bench, shots: Sequence[Shot], pictures: Pictures) -> dict[str, float]:
    """Purity by setting, and what becomes of copies.

    Every kind of copy is measured by itself: all scenes, and a copy of that kind of those that have one, which come
    first, are clustered and de-duplicated as one run. `found` and `hit` are those of demo.metrics.copies; `.phash.` and
    `.semantic.` those of one kind of search alone at its configured threshold; `at_1_percent` is the share of copies
    nearer to their original than the least threshold that hits no more than `MOST_HIT` of the scenes.
    """
    vectors = bench.embed(pictures)
    clustered = bench.cluster(vectors)
    settings = [shot.truth.setting for shot in shots]
    figures = {
        "purity": purity(clustered.rows["cluster"].to_pylist(), settings),
        "purity.majority": majority(settings),
        "purity.k": float(clustered.k),
    }
    kinds = list(shots[0].copies)
    if not kinds:
        return figures
    figures |= _thresholds(vectors, pictures.rows)
    for kind in kinds:
        files = {uid_of(shot.truth.seed, kind): shot.copies[kind] for shot in shots if shot.copies}
        copies = bench.download(files)
        found = _removed(bench, shots, pictures.rows, vectors, copies.rows, copied := bench.embed(copies))
        found |= _separated(figures, pictures.rows, vectors, copies.rows, copied)
        figures |= {f"copies.{kind}.{name}": value for name, value in found.items()}
    for search in ("", "phash.", "semantic."):
        hits = [figures[f"copies.{kind}.{search}hit"] for kind in kinds if kind in PLANTED]
        if hits:
            figures[f"copies.{search}hit"] = max(hits)
    return figures


def _removed(
    bench: Bench, shots: Sequence[Shot], rows: pa.Table, vectors: pa.Table, copies: pa.Table, copied: pa.Table
) -> dict[str, float]:
    """What the configured stage finds and hits, and what each search does alone."""
    section = bench.config.dedup
    downloaded, embedded = pa.concat_tables([rows, copies]), pa.concat_tables([vectors, copied])
    clustered = bench.cluster(embedded)
    seeds = [shot.truth.seed for shot in shots]
    uids = downloaded["uid"].to_pylist()
    scene_of = dict(zip(uids, seeds + seeds[: len(uids) - len(seeds)], strict=True))
    figures: dict[str, float] = {}
    searches: dict[str, dict[str, bool | None]] = {
        "": {},
        "phash.": {"exact": False, "epsilon": None},
        "semantic.": {"exact": False, "hamming": None},
    }
    for name, changes in searches.items():
        gone = bench.dedup(downloaded, embedded, clustered, section.model_copy(update=changes))
        one = copy_figures(scene_of, gone)
        figures |= {f"{name}found": one.found, f"{name}hit": one.hit}
    return figures


def _thresholds(vectors: pa.Table, rows: pa.Table) -> dict[str, float]:
    """Cosine and bits beyond which at most `MOST_HIT` of the scenes are hit, whatever their clusters."""
    unit, bits = _unit(vectors), _bits(rows)
    apart = HASH_BITS - (bits[:, None, :] != bits[None, :, :]).sum(axis=2)
    return {
        "copies.semantic.cosine_at_1_percent": threshold_for(earlier_neighbours(unit @ unit.T), MOST_HIT),
        "copies.phash.bits_at_1_percent": HASH_BITS - threshold_for(earlier_neighbours(apart), MOST_HIT),
    }


def _unit(vectors: pa.Table) -> np.ndarray:
    return Vectors.of(vector_array(vectors["embedding"])).unit(slice(None))


def _separated(
    figures: dict[str, float], rows: pa.Table, vectors: pa.Table, copies: pa.Table, copied: pa.Table
) -> dict[str, float]:
    count = copies.num_rows
    cosine = (_unit(vectors)[:count] * _unit(copied)).sum(axis=1)
    equal = (_bits(rows)[:count] == _bits(copies)).sum(axis=1)
    alike = HASH_BITS - figures["copies.phash.bits_at_1_percent"]
    return {
        "semantic.at_1_percent": found_above(cosine, figures["copies.semantic.cosine_at_1_percent"]),
        "phash.at_1_percent": found_above(equal, alike),
        "least_cosine": float(cosine.min()),
    }


def _bits(rows: pa.Table) -> np.ndarray:
    """Perceptual hashes as bits, uint8 (n, HASH_BITS)."""
    hashes = rows["phash"].to_numpy().astype(">u8")
    return np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1)
