"""What comes after the last stage: the dataset folder, the card, the report; and looking at them again later."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.identities import recorded_stages
from pipeline.plan import Snapshot, StagePlan, plan
from pipeline.report.build import render_report
from pipeline.report.curation import Curation, curation
from pipeline.report.samples import pick_faulty, pick_samples
from pipeline.report.sweep_page import render_sweep, sheets
from pipeline.report.sweep_view import sweep_view
from pipeline.sample import clusters_of, draw, extent_of
from pipeline.storage import LocalStorage, open_storage
from pipeline.store import CommittedImages, Store
from pipeline.summary import summarise
from pipeline.sweep import epsilons_with, further_columns
from pipeline.verify import Problem, unfinished, verify_store
from schemas.errors import IncompleteRunError, RequestError
from schemas.summary import RunSummary
from stages.base import Stage
from stages.card import render_card
from stages.dataset import CARD, PackagedShard, assemble_dataset, check_dataset, read_manifest
from stages.export import export_folder, export_hub
from stages.priors import DecidedPriors

DATASET = "dataset"
REPORT = "report/index.html"
SWEEP = "report/dedup-sweep.html"


class View:
    """A run as it stands: its stages, plan, figures and store."""

    def __init__(self, config: Config, location: str) -> None:
        storage = open_storage(location)
        if not isinstance(storage, LocalStorage):
            raise RequestError(
                f"The dataset folder and the report need a run directory on a file system, not {location}."
            )
        self.config = config
        self.root: Path = storage.root
        self.store = Store(storage)
        self.stages: list[Stage] = recorded_stages(config, storage)
        self.plans: list[StagePlan] = plan(storage, self.stages)

    @property
    def summary(self) -> RunSummary:
        return summarise(self.config, self.store.storage, self.stages, self.plans)

    @property
    def complete(self) -> bool:
        return not unfinished(self.plans)


def finish(config: Config, location: str) -> dict[str, str]:
    """Make the dataset folder and the report of a run that has just ended; returns where things are, for a person.

    Both only say what is committed, so a kill in the middle costs nothing: the next run makes them.
    """
    view = View(config, location)
    places: dict[str, str] = {}
    if view.complete:
        if not _is_assembled(view):
            assemble(view)
        places["dataset"] = f"{view.root / DATASET} ({_yield(view.summary)})"
    return {**places, "ledger": f"{view.root}/*/ledger", "report": str(make_report(view))}


def _yield(summary: RunSummary) -> str:
    rows, came = summary.stages[-1].rows_out, summary.stages[0].rows_in
    return f"{rows:,} of {came:,} rows" if rows else f"empty: none of {came:,} rows reached it, the ledger says why"


def _is_assembled(view: View) -> bool:
    """Whether RUN/dataset holds what is committed now; tars are compared by the hashes that both sides state."""
    dataset, last = view.root / DATASET, view.stages[-1].name
    if check_dataset(dataset, deep=False) or (dataset / CARD).read_text() != card(view):
        return False
    records = {name: view.store.record_of(last, name) for name in view.plans[-1].shards}
    committed = [record.object("dataset", name).sha256 for name, record in records.items() if record.rows_out]
    return committed == [file.sha256 for file in read_manifest(dataset).files if file.rows]


def assemble(view: View) -> None:
    """RUN/dataset from the committed `package` shards."""
    last = view.stages[-1].name
    shards = []
    for name in view.plans[-1].shards:
        record = view.store.record_of(last, name)
        item = record.object("dataset", name)
        tar = Path(view.store.storage.uri(item.key))
        shards.append(PackagedShard(name, tar, item.sha256, item.bytes, view.store.table(last, name)))
    assemble_dataset(view.root / DATASET, shards, card(view))


def card(view: View) -> str:
    """The dataset card as the run and its configuration are now."""
    return render_card(view.summary, view.config.export.card)


def make_report(view: View) -> Path:
    captioned = next(item for item in view.plans if item.name == "caption")
    shards = [shard for shard in captioned.shards if shard not in captioned.pending] if captioned.final else []
    priors = DecidedPriors(view.config.perceive)
    images, gallery = CommittedImages(view.store), view.config.run.gallery
    samples = pick_samples(view.store, images, priors, shards, gallery)
    faulty = pick_faulty(view.store, images, priors, shards, gallery // 2, {sample.uid for sample in samples})
    view.store.storage.write(REPORT, render_report(view.summary, samples, _curation(view), faulty).encode())
    return view.root / REPORT


def sweep_dedup(config: Config, location: str, epsilons: Sequence[float], rows: int) -> dict[str, Any]:
    """What each threshold of `dedup` would remove, and a page of pairs next to each, RUN/report/dedup-sweep.html.

    Reads the vectors of the whole run once, and compares those of whole clusters, drawn by seed, of about `rows` rows.

    Returns:
        The figures as `dedup-sweep --json` prints them; others rely on this shape.

    Raises:
        RequestError: `cluster` is not done, or no cluster can be drawn.
    """
    view = View(config, location)
    if "cluster" not in _done(view):
        raise RequestError(
            f"{location} has no clusters that are up to date: `dedup-sweep` needs `embed` and `cluster` done, and no "
            f"more. Run it that far first; `densefusion explain {location}` says what is left."
        )
    store = Snapshot(view.store.storage)
    images, extent = CommittedImages(store), extent_of(store)
    sample = draw(store, extent, clusters_of(store, extent), rows, further_columns(config.dedup))
    if not len(sample):
        raise RequestError(
            f"No cluster of {location} fits into a sample of {rows:,} rows. Ask for more with `--rows`."
            if extent.rows
            else f"{location} has no clustered rows: nothing came through `embed`; `densefusion ledger {location}` "
            "says why."
        )
    tried = epsilons_with(config.dedup.epsilon, epsilons)
    swept = sweep_view(sample, config.dedup, tried)
    page = render_sweep(config.name, swept, sheets(sample, images, store, config.dedup, tried))
    view.store.storage.write(SWEEP, page.encode())
    return {
        "run": location,
        "rows": extent.rows,
        "sampled": len(sample),
        "clusters": sample.clusters,
        "compared": swept.rows,
        "own": config.dedup.epsilon,
        "points": [
            {"epsilon": p.epsilon, "rule": p.rule, "removed": p.removed, "groups": p.groups, "share": p.share}
            for points in swept.points.values()
            for p in points
        ],
        "page": str(view.root / SWEEP),
    }


def _done(view: View) -> set[str]:
    return {item.name for item in view.plans if not item.rerun}


def _curation(view: View) -> Curation | None:
    done = _done(view)
    if "cluster" not in done:
        return None
    metrics = view.summary.metrics_of("dedup")
    store = Snapshot(view.store.storage)
    return curation(store, CommittedImages(store), view.config.dedup, "dedup" in done, metrics)


def write_report(config: Config, location: str) -> Path:
    return make_report(View(config, location))


def verify_run(config: Config, location: str) -> list[Problem]:
    """Problems of the store, and of the dataset folder where the run is complete."""
    view = View(config, location)
    problems = verify_store(view.store.storage, view.stages, view.plans)
    if view.complete:
        problems += [Problem("package", DATASET, what) for what in check_dataset(view.root / DATASET)]
    return problems


def publish(
    config: Config,
    location: str,
    *,
    hub: str | None,
    folder: Path | None,
    public: bool,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Send the dataset folder of a complete run to the Hub or to a folder.

    Args:
        hub, folder: where to; one of them.
        public: make a Hub dataset that is created now public, whatever the configuration says.
        progress: called with (files there, files in all) as the Hub takes them.

    Raises:
        IncompleteRunError: there is work left.
        RequestError: the destination refuses us.
    """
    view = View(config, location)
    if not view.complete:
        left = ", ".join(unfinished(view.plans))
        raise IncompleteRunError(
            f"{location} is not complete; still to do: {left}. Run it to its end first: what is published is whole."
        )
    assemble(view)
    dataset = view.root / DATASET
    if folder is not None:
        manifest = export_folder(dataset, folder)
        return {"where": str(folder), "uploaded": len(manifest.files), "skipped": 0}
    assert hub is not None
    settings = view.config.export.model_copy(update={"private": False}) if public else view.config.export
    sent = export_hub(dataset, hub, settings, progress=progress)
    return {"where": sent.url, "uploaded": sent.uploaded, "skipped": sent.skipped, "revision": sent.revision}
