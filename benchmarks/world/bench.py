"""The stages of a run, fed in this process: the same classes, the same settings, no Ray and no web."""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.pictures import MemoryImages, laid_out
from benchmarks.threads import torch_threads
from pipeline.config import Config
from schemas.errors import ContractError
from schemas.tables import DOWNLOAD, SELECT
from stages.base import A, GatherInput, GatherStage, MapStage, R, ShardInput, ShardOutput, shard_name
from stages.cluster import ClusterStage
from stages.dedup import DedupSection, DedupStage
from stages.embed import EmbedStage
from stages.fetch.inspector import Inspector
from stages.perceive import PerceiveStage

SHARD = shard_name(0)


@dataclass(frozen=True)
class Pictures:
    """Images that were downloaded: rows of schemas.tables.DOWNLOAD, one shard, and their bytes."""

    rows: pa.Table
    images: MemoryImages


@dataclass(frozen=True)
class Clustered:
    """What the cluster stage made: rows of schemas.tables.CLUSTER, the k that was used, its files by kind."""

    rows: pa.Table
    k: int
    files: Mapping[str, Path]


class Bench:
    """Stages as configured, opened once each.

    Attributes:
        models: identity of what decides each opened stage's output, beside the configuration, by the stage's name.
    """

    def __init__(self, config: Config, scratch: Path, stack: contextlib.ExitStack) -> None:
        download = config.download
        self.config = config
        self.models: dict[str, dict[str, str]] = {}
        self._scratch, self._stack = scratch, stack
        self._inspector = Inspector(download.formats, download.max_pixels, download.max_frames, download.min_short_edge)
        self._embed: EmbedStage = self.open(EmbedStage(config.embed))

    def open(self, stage: Any) -> Any:
        """Open a map stage for as long as the bench lasts. Raises RequestError, SetupError."""
        stage.check()
        self.models[stage.name] = stage.identity
        stage.open()
        self._stack.callback(stage.close)
        return stage

    def download(self, files: Mapping[str, bytes]) -> Pictures:
        """What the download stage notes of files, by uid. Raises FetchRefused where it would not take one."""
        places, images = laid_out(list(files.values()))
        rows = [
            {"uid": uid, "url": f"http://h.test/{uid}"} | vars(self._inspector.inspect(data)) | place
            for (uid, data), place in zip(files.items(), places, strict=True)
        ]
        return Pictures(pa.Table.from_pylist(rows, schema=DOWNLOAD), images)

    def embed(self, pictures: Pictures) -> pa.Table:
        return _whole(self._embed, self._map(self._embed, pictures, {"download": pictures.rows}))

    def cluster(self, embedded: pa.Table) -> Clustered:
        stage = ClusterStage(self.config.cluster)
        output = self._gather(stage, {"embed": embedded})
        return Clustered(_whole(stage, output), int(output.metrics["k"]), output.files)

    def dedup(
        self, downloaded: pa.Table, embedded: pa.Table, clustered: Clustered, section: DedupSection
    ) -> dict[str, str]:
        """uid of every picture that goes to the uid of the one because of which it goes."""
        stage = DedupStage(section)
        tables = {"download": downloaded, "embed": embedded, "cluster": clustered.rows}
        output = self._gather(stage, tables, {"cluster": clustered.files})
        gone = pq.read_table(output.files["duplicates"])
        return dict(zip(gone["uid"].to_pylist(), gone["kept_uid"].to_pylist(), strict=True))

    def perceive(
        self, stage: PerceiveStage, pictures: Pictures, needs: Mapping[str, pa.Table] | None = None
    ) -> list[dict[str, Any]]:
        """The priors of every picture, in order.

        Args:
            needs: tables of the stages that this one also reads, by name.

        Raises:
            ContractError: the expert failed on a picture.
        """
        rows = _whole(stage, self._map(stage, pictures, {"select": selected(pictures), **(needs or {})})).to_pylist()
        errors = [row["error"] for row in rows if row["error"] is not None]
        if errors:
            raise ContractError(f"{stage.name} failed on {len(errors)} of {len(rows)} pictures; the first: {errors[0]}")
        return rows

    def _map(self, stage: MapStage, pictures: Pictures, tables: dict[str, pa.Table]) -> ShardOutput:
        threads = max(1, int(stage.config.resources.cpus))
        with torch_threads(threads):
            return stage.process(ShardInput(SHARD, tables, pictures.images, self._scratch))

    def _gather(
        self, stage: GatherStage, tables: Mapping[str, pa.Table], files: Mapping[str, Mapping[str, Path]] | None = None
    ) -> ShardOutput:
        ((_, output),) = stage.process(_OneShard(self._scratch, tables, files or {}))
        return output


class _OneShard:
    """A GatherInput over one shard in memory, with folders of its own under `scratch`."""

    def __init__(self, scratch: Path, tables: Mapping[str, pa.Table], files: Mapping[str, Mapping[str, Path]]) -> None:
        self.scratch, self.kept = (Path(tempfile.mkdtemp(dir=scratch)) for _ in range(2))
        self._tables, self._files = tables, files

    def shards(self, stage: str) -> list[str]:
        return [SHARD]

    def table(self, stage: str, shard: str, columns: list[str] | None = None) -> pa.Table:
        return self._tables[stage].select(columns) if columns else self._tables[stage]

    def file(self, stage: str, shard: str, kind: str) -> Path:
        return self._files[stage][kind]

    def spread(self, work: Callable[[GatherInput, A], R], items: Sequence[A]) -> Iterator[R]:
        return (work(self, item) for item in items)


@contextlib.contextmanager
def opened(config: Config) -> Iterator[Bench]:
    """A bench whose embed stage is open. Raises RequestError, SetupError."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        yield Bench(config, Path(scratch), stack)


def uid_of(seed: int, kind: str = "") -> str:
    """Looks as ingest's do, so that what goes by uid is as arbitrary as in a run."""
    return hashlib.blake2b(f"{seed} {kind}".encode(), digest_size=16).hexdigest()


def selected(pictures: Pictures) -> pa.Table:
    """Every picture as if it had been chosen: rows of schemas.tables.SELECT."""
    chosen = {"cluster": 0, "rank": 0, "centroid_cosine": 1.0, "image_shard": SHARD}
    rows = [dict.fromkeys(SELECT.names) | row | chosen for row in pictures.rows.drop_columns("phash").to_pylist()]
    return pa.Table.from_pylist(rows, schema=SELECT)


def _whole(stage: MapStage | GatherStage, output: ShardOutput) -> pa.Table:
    if output.drops:
        drop = output.drops[0]
        raise ContractError(f"{stage.name} dropped {len(output.drops)} good pictures; the first: {drop.detail}")
    return output.rows
