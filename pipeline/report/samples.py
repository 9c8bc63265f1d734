"""Which samples the report shows, the same ones each time: some spread evenly over the dataset, some with findings."""

from collections.abc import Collection
from itertools import zip_longest

from pipeline.report.build import ReportSample
from pipeline.store import Store
from schemas.tables import SCORE_COLUMNS
from stages.base import ImageSource, align
from stages.priors import DecidedPriors

_SEARCHED = 32
"""Shards in which samples with findings are looked for; a run of a million rows has hundreds."""


def pick_samples(
    store: Store, images: ImageSource, priors: DecidedPriors, shards: list[str], count: int
) -> list[ReportSample]:
    """At most `count` rows with everything that is known of them.

    Args:
        shards: those whose captions are up to date.
    """
    sizes = {shard: (store.record_of("caption", shard).rows_of(shard).rows or 0) for shard in shards}
    total = sum(sizes.values())
    wanted = {round(i * total / min(count, total)) for i in range(min(count, total))} if total else set()
    samples, first = [], 0
    for shard, size in sizes.items():
        places = [place - first for place in sorted(wanted) if first <= place < first + size]
        if places:
            samples += _samples(store, images, shard, places, priors)
        first += size
    return samples


def pick_faulty(
    store: Store,
    images: ImageSource,
    priors: DecidedPriors,
    shards: list[str],
    count: int,
    shown: Collection[str] = (),
) -> list[ReportSample]:
    """At most `count` rows in whose captions the checks found something, each kind of finding in its turn, so that rare
    ones are seen; from shards spread evenly over the dataset.

    Args:
        shards: those whose captions are up to date.
        shown: uids of rows that are in the report already.
    """
    by_kind: dict[str, list[tuple[str, int]]] = {}
    for shard in shards[:: -(-len(shards) // _SEARCHED)] if shards else []:
        found = store.table("caption", shard, ["uid", "findings"]).to_pylist()
        for place, row in enumerate(found):
            if row["uid"] not in shown:
                for kind in {one["kind"] for one in row["findings"]}:
                    by_kind.setdefault(kind, []).append((shard, place))
    turns = zip_longest(*(by_kind[kind] for kind in sorted(by_kind)))
    chosen = list(dict.fromkeys(one for turn in turns for one in turn if one is not None))[:count]
    places: dict[str, list[int]] = {}
    for shard, place in sorted(chosen):
        places.setdefault(shard, []).append(place)
    return [sample for shard, some in places.items() for sample in _samples(store, images, shard, some, priors)]


def _samples(
    store: Store, images: ImageSource, shard: str, places: list[int], decide: DecidedPriors
) -> list[ReportSample]:
    captions = store.table("caption", shard).take(places)
    uids = captions.column("uid").to_pylist()
    selected = align(store.table("select", shard), uids).to_pylist()
    measured = {name: align(store.table(f"perceive.{name}", shard), uids).to_pylist() for name in decide.experts}
    samples = []
    for i, (caption, row) in enumerate(zip(captions.to_pylist(), selected, strict=True)):
        try:
            image = images.read(row["image_shard"], row["image_offset"], row["image_bytes"])
        except FileNotFoundError:  # a damaged store still has a report; `verify` says what is missing
            continue
        samples.append(
            ReportSample(
                uid=row["uid"],
                url=row["url"],
                image=image,
                width=row["width"],
                height=row["height"],
                priors=decide.of({name: table[i] for name, table in measured.items()}),
                caption=caption["caption"],
                alt_text=row["alt_text"],
                findings=caption["findings"],
                repaired=caption["repaired"],
                scores={name: row[column] for name, column in SCORE_COLUMNS.items() if row[column] is not None},
            )
        )
    return samples
