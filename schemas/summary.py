"""A finished or unfinished run in figures: what the dataset card and the report are made from."""

from dataclasses import dataclass, field

from schemas.ledger import Reason

OPT_OUT_REASONS = (Reason.OPTED_OUT, Reason.REFUSED_ROBOTS)


@dataclass(frozen=True)
class StageSummary:
    """One stage of a run, summed over its committed shards.

    Attributes:
        name: as in `status`; experts are `perceive.<expert>`.
        shards: shards there are to do, or that were done where a stage makes its own.
        committed: of those, how many have a commit record.
        failed: of those, how many are recorded as failed.
        dropped: rows in the ledger, by reason.
        seconds: working time, summed over shards and workers.
        workers: different workers that committed a shard.
        bytes: size of the committed data objects.
        peak_memory: largest resident set of one worker, bytes; 0 where not measured.
        retries: attempts beyond each shard's first.
        metrics: the stage's own figures, summed.
    """

    name: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    committed: int = 0
    failed: int = 0
    seconds: float = 0.0
    workers: int = 0
    bytes: int = 0
    peak_memory: int = 0
    retries: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def is_expert(self) -> bool:
        """Experts look at the same rows side by side; they are no step of the funnel."""
        return self.name.startswith("perceive.")


@dataclass(frozen=True)
class RunSummary:
    """One run.

    Attributes:
        name: the run's name.
        stages: in order of the graph.
        sources: the metadata that was ingested, by name.
        models: identity (name@revision or weights hash) by stage name.
        prompt_version: version of the caption prompt.
        engine: what answered the chat API.
        notes: what a reader must know before trusting the data, one sentence each.
        allow_hosts: hosts that the fetcher's address policy was told to let through.
        languages: of the captions, ISO 639-1.
    """

    name: str
    stages: tuple[StageSummary, ...]
    sources: tuple[str, ...] = ()
    models: dict[str, str] = field(default_factory=dict)
    prompt_version: str = ""
    engine: str = ""
    notes: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)

    @property
    def funnel(self) -> tuple[StageSummary, ...]:
        """The stages that a row passes one after the other, from URL to sample."""
        return tuple(s for s in self.stages if not s.is_expert)

    def metrics_of(self, stage: str) -> dict[str, float]:
        """A stage's own figures; none where the run has no such stage."""
        return next((one.metrics for one in self.stages if one.name == stage), {})

    @property
    def rows_in(self) -> int:
        """Rows of metadata that came in."""
        return self.funnel[0].rows_in if self.funnel else 0

    @property
    def samples(self) -> int:
        """Rows that left the funnel's last stage."""
        return self.funnel[-1].rows_out if self.funnel else 0

    @property
    def opt_outs(self) -> int:
        """Rows left out because a site's robots.txt or the page itself said so."""
        return sum(s.dropped.get(reason, 0) for s in self.stages for reason in OPT_OUT_REASONS)
