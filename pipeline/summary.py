"""A run in figures, read from its commit records: what `status`, the report and the card show."""

from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.plan import Snapshot, StagePlan
from pipeline.storage import Storage
from schemas.commit import CommitRecord
from schemas.summary import RunSummary, StageSummary
from stages.base import Stage


def summarise(config: Config, storage: Storage, stages: list[Stage], plans: list[StagePlan]) -> RunSummary:
    """Everything committed so far, stage by stage."""
    store = Snapshot(storage)
    by_name = {item.name: item for item in plans}
    identities = {stage.name: stage.identity for stage in stages}
    return RunSummary(
        name=config.name,
        stages=tuple(_stage(store, by_name[stage.name]) for stage in stages),
        sources=tuple(Path(source).name for source in config.ingest.sources),  # folders are nobody's business
        models={
            name: ", ".join(value for key, value in sorted(models.items()) if key != "prompt")
            for name, models in identities.items()
            if models and name not in ("ingest", "package")
        },
        prompt_version=identities["caption"].get("prompt", ""),
        engine=", ".join(config.caption.engine.urls) or "vLLM, started by the caption workers",
        notes=tuple(config.notes),
        allow_hosts=tuple(config.download.allow_hosts),
        languages=tuple(config.export.card.language),
    )


def _stage(store: Snapshot, item: StagePlan) -> StageSummary:
    records = [r for r in (store.commit(item.name, shard) for shard in item.shards) if r is not None]
    dropped: dict[str, int] = {}
    metrics: dict[str, float] = {}
    for record in records:
        for reason, count in record.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        for name, value in record.metrics.items():
            metrics[name] = metrics.get(name, 0) + value
    return StageSummary(
        name=item.name,
        rows_in=sum(r.rows_in for r in records),
        rows_out=sum(r.rows_out for r in records),
        dropped=dict(sorted(dropped.items(), key=lambda pair: -pair[1])),
        shards=len(item.shards),
        committed=len(item.shards) - len(item.pending) if item.final else len(records),
        failed=sum(store.failure(item.name, shard) is not None for shard in item.pending),
        seconds=round(sum(r.seconds for r in records), 3),
        workers=len({(r.worker.host, r.worker.pid) for r in records}),
        bytes=sum(o.bytes for r in records for o in _objects(r)),
        peak_memory=max((r.peak_rss_bytes for r in records), default=0),
        retries=sum(r.retries for r in records),
        metrics=metrics,
    )


def _objects(record: CommitRecord) -> list[Any]:
    return [*record.objects, *([record.ledger] if record.ledger else [])]


def status_json(location: str, summary: RunSummary, plans: list[StagePlan]) -> dict[str, Any]:
    """`status --json`; others rely on this shape."""
    return {
        "run": location,
        "complete": not any(item.rerun for item in plans),
        "stages": [
            {
                "name": s.name,
                "shards": s.shards,
                "committed": s.committed,
                "failed": s.failed,
                "rows_in": s.rows_in,
                "rows_out": s.rows_out,
                "dropped": s.dropped,
                "seconds": s.seconds,
            }
            for s in summary.stages
        ],
    }


def explain_json(plans: list[StagePlan]) -> dict[str, Any]:
    """`explain --json`; others rely on this shape."""
    return {
        "stages": [
            {"name": item.name, "rerun": item.rerun, "because": item.because, "changes": item.changes} for item in plans
        ]
    }
