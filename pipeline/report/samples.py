"""Which samples the gallery shows: spread evenly over the dataset, the same ones each time."""

from pipeline.report.build import ReportSample
from pipeline.store import Store
from schemas.tables import SCORE_COLUMNS
from stages.base import ImageSource, align
from stages.priors import DecidedPriors


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
