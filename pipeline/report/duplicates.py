"""What `dedup` took for copies, as sheets: on both sides of the threshold, copies of each kind, the largest groups."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.report.charts import Histogram, histogram
from pipeline.report.tiles import Tile, Tiles
from pipeline.sample import Extent, Sample
from pipeline.store import Store
from pipeline.sweep import Pair, compared, pairs_near
from schemas.tables import DUPLICATES
from stages.dedup import DedupSection

PAIRS = 12
"""Pairs on each side of the threshold."""

_COPIES = {"exact": 3, "perceptual": 6}
_GROUPS = 3
_MEMBERS = 7  # of a group, beside its kept row
_ESTIMATES = {
    "recall_rows": "copies compared with one of theirs",
    "recall_pairs": "pairs of copies compared",
    "residual": "kept rows that still have a kept copy",
}
_SPARE = 40  # candidates for each pair, because the other half may lie in a shard that was not drawn


@dataclass(frozen=True)
class PairView:
    """Two rows side by side; `measure` says how alike they are."""

    left: Tile
    right: Tile
    measure: str


@dataclass(frozen=True)
class GroupView:
    """A kept row and some of those that went for it; `removed` is how many did."""

    kept: Tile
    members: list[Tile]
    removed: int


@dataclass(frozen=True)
class Estimate:
    """A share that `dedup` estimated by holding sampled rows against all others.

    Attributes:
        low, high: ends of its 95 % interval, where it has one.
        of: rows or pairs that it was estimated from.
    """

    label: str
    share: float
    low: float | None
    high: float | None
    of: int


@dataclass(frozen=True)
class Duplicates:
    """What `dedup` took for copies.

    Attributes:
        above: semantic removals of the lowest cosine.
        below: the closest pairs that both stayed.
        copies: exact and perceptual removals, by kind.
        groups: the largest.
        group_sizes: kept row included.
        removed: rows by kind.
        recall: the stage's own estimates.
    """

    above: list[PairView]
    below: list[PairView]
    copies: dict[str, list[PairView]]
    groups: list[GroupView]
    group_sizes: Histogram
    removed: dict[str, int]
    recall: list[Estimate]


def duplicates_view(
    tiles: Tiles, removed: pa.Table, sample: Sample, config: DedupSection, metrics: Mapping[str, float]
) -> Duplicates:
    groups = Counter(removed.column("group").to_pylist())
    near = _candidates(removed, "semantic", "cosine", "ascending", PAIRS)
    copies = {
        "exact": _candidates(removed, "exact", "uid", "ascending", _COPIES["exact"]),
        "perceptual": _candidates(removed, "perceptual", "hamming", "descending", _COPIES["perceptual"]),
    }
    largest = sorted(groups.items(), key=lambda item: (-item[1], item[0]))[: _GROUPS * _SPARE]
    below = _below(sample, removed, config)
    tiles.know(sample, below)
    rows = [*near, *copies["exact"], *copies["perceptual"]]
    tiles.find(uid for row in rows for uid in (row["uid"], row["kept_uid"]))
    tiles.find(uid for uid, _ in largest)
    kinds = Counter(removed.column("kind").to_pylist())
    return Duplicates(
        above=list(_removals(tiles, near, PAIRS)),
        below=[sample_pair(tiles, sample, pair, ("kept", "kept")) for pair in below],
        copies={kind: list(_removals(tiles, found, _COPIES[kind])) for kind, found in copies.items() if found},
        groups=list(_groups(tiles, removed, largest)),
        group_sizes=histogram(np.array(list(groups.values()), np.int64) + 1),
        removed={kind: kinds[kind] for kind in ("exact", "perceptual", "semantic") if kinds[kind]},
        recall=list(_estimates(metrics)),
    )


def _estimates(metrics: Mapping[str, float]) -> Iterator[Estimate]:
    """From the metrics of stages.curate.recall."""
    for name, label in _ESTIMATES.items():
        if name in metrics:
            ends = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
            yield Estimate(label, metrics[name], *ends, int(metrics[f"{name}_of"]))


def _candidates(removed: pa.Table, kind: str, key: str, order: str, count: int) -> list[dict[str, Any]]:
    of_kind = removed.filter(pc.equal(removed.column("kind"), kind))
    keys = [(key, order), *([("uid", "ascending")] if key != "uid" else [])]
    found: list[dict[str, Any]] = of_kind.take(pc.select_k_unstable(of_kind, count * _SPARE, keys)).to_pylist()
    return found


def _removals(tiles: Tiles, rows: list[dict[str, Any]], count: int) -> Iterator[PairView]:
    """A removed row on the left, on the right the one that it went for."""
    for row in [r for r in rows if r["uid"] in tiles and r["kept_uid"] in tiles][:count]:
        other = "kept" if row["kept_uid"] == row["group"] else "went, too"
        yield PairView(tiles.tile(row["uid"], "removed"), tiles.tile(row["kept_uid"], other), _measure(row))


def _measure(row: Mapping[str, Any]) -> str:
    if row["cosine"] is not None:
        return f"cosine {row['cosine']:.4f}"
    return f"{row['hamming']} bits apart" if row["hamming"] is not None else "same bytes"


def _below(sample: Sample, removed: pa.Table, config: DedupSection) -> list[Pair]:
    """The closest pairs of the sample that both stayed and are not above the threshold."""
    if config.epsilon is None:
        return []
    gone = pc.is_in(sample.rows.column("uid"), removed.column("uid").combine_chunks()).to_numpy()
    _, below = pairs_near(sample, compared(sample, config), np.flatnonzero(~gone), [1 - config.epsilon], PAIRS)[0]
    return below


def _groups(tiles: Tiles, removed: pa.Table, largest: list[tuple[str, int]]) -> Iterator[GroupView]:
    for uid, size in [item for item in largest if item[0] in tiles][:_GROUPS]:
        rows = removed.filter(pc.equal(removed.column("group"), uid))
        least_alike = pc.sort_indices(rows, [("cosine", "ascending"), ("hamming", "descending"), ("uid", "ascending")])
        members = rows.take(least_alike[:_MEMBERS]).to_pylist()
        tiles.find(member["uid"] for member in members)
        shown = [tiles.tile(m["uid"], "removed", _measure(m)) for m in members]
        yield GroupView(tiles.tile(uid, "kept"), shown, size)


def sample_pair(tiles: Tiles, sample: Sample, pair: Pair, roles: tuple[str, str]) -> PairView:
    """Two rows of a sample; `tiles` knows them."""
    a, b = sample.rows.column("uid").take([pair.a, pair.b]).to_pylist()
    return PairView(tiles.tile(a, roles[0]), tiles.tile(b, roles[1]), f"cosine {pair.cosine:.4f}")


def removed_rows(store: Store, extent: Extent) -> pa.Table:
    """The duplicates of the extent's shards."""
    parts = [DUPLICATES.empty_table()]
    for shard in extent.shards:
        item = store.record_of("dedup", shard).object("duplicates", shard)
        parts.append(pq.read_table(store.storage.local(item.key), columns=DUPLICATES.names))
    return pa.concat_tables(parts)
