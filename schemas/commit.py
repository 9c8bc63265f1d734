"""The commit record: the only thing that makes a shard done."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class DataObject(BaseModel):
    """One object that a commit names. Objects that no commit names are not part of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(description="`rows` for the table, else the stage's own word (images, dataset, centroids, ...)")
    shard: str = Field(description="the shard it belongs to; a gather's one commit names objects of many")
    key: str = Field(description="relative to the run directory")
    sha256: str
    bytes: int
    rows: int | None = Field(None, description="tables only")


class Worker(BaseModel):
    """Who did it, for whoever has to find out why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    pid: int
    device: str


class CommitRecord(BaseModel):
    """Small JSON written last, `RUN/<stage>/commits/<shard>.json`.

    Every commit holds rows_in == rows_out + sum(dropped.values()).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    shard: str = Field(description="`all` for a gather's one commit")
    attempt: str
    fingerprint: str = Field(description="sha256 over `components`")
    components: dict[str, Any] = Field(description="what decided the content: version, config, models, inputs")
    objects: list[DataObject]
    ledger: DataObject | None
    rows_in: int
    rows_out: int
    dropped: dict[str, int]
    worker: Worker
    started: float = Field(description="Unix time, seconds")
    seconds: float
    peak_rss_bytes: int
    retries: int = Field(0, description="attempts of this shard that failed before this one, in the same session")
    metrics: dict[str, float] = Field(default_factory=dict)

    def rows_of(self, shard: str) -> DataObject:
        """The table of one shard. Raises KeyError."""
        return self.object("rows", shard)

    def object(self, kind: str, shard: str) -> DataObject:
        for item in self.objects:
            if item.kind == kind and item.shard == shard:
                return item
        raise KeyError(f"{self.stage} has no {kind} for shard {shard}")

    def shards(self) -> list[str]:
        return sorted({item.shard for item in self.objects if item.kind == "rows"})


class FailureRecord(BaseModel):
    """`RUN/<stage>/failures/<shard>.json`: a shard that was retried and given up for now."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    shard: str
    error: str = Field(description="the exception's own words")
    traceback: str
    attempts: int
    setup: bool = Field(description="no worker could start the stage; every shard would fail the same way")
    time: float
