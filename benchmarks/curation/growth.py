"""How the dedup stage's time for a row, and its workers' memory, grow with the number of rows."""

import itertools
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.curation.bordering import TAU, Setting
from benchmarks.curation.figure import Figure
from benchmarks.curation.planted import topics
from benchmarks.memory import watched_memory
from stages.base import A, GatherInput, R
from stages.curate.semantic.border import Border
from stages.dedup import DedupSection, DedupStage, search

ROWS_PER_CLUSTER = 1000
SIZES, QUICK = (25_000, 50_000, 100_000, 200_000, 400_000), (5_000, 10_000)
SHARD = 10_000
PIECE = 1 << 25
"""Pairs of a piece of work, and ROWS rows: less than in the stage, where the smaller sizes would be one piece."""
ROWS = 1 << 14
GROWTH = 1.15
BORDERS: dict[Border, str] = {"none": "inside clusters only", "margin": "with the border search"}
ROUNDS = 3


def measure(quick: bool) -> list[Figure]:
    sizes = QUICK if quick else SIZES
    grown: list[dict[Border, _Grown]] = []
    for rows in sizes:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            grown.append(alone.submit(_grown, rows).result())
    what = f"{sizes[0]:,} to {sizes[-1]:,} rows, {ROWS_PER_CLUSTER} to a centroid"
    target = None if quick else GROWTH
    figures = []
    for border, words in BORDERS.items():
        micro = [1e6 * one[border].seconds / rows for one, rows in zip(grown, sizes, strict=True)]
        visits = ", ".join(f"{one[border].visits:.2f}" for one in grown)
        figures.append(
            Figure(
                f"time of dedup for a row {words}, greatest growth over a doubling, {what}",
                max(later / earlier for earlier, later in itertools.pairwise(micro)),
                target,
                at_most=True,
                unit="x",
                note="with reading its tables; µs: "
                + ", ".join(f"{each:.1f}" for each in micro)
                + (f"; visits a row: {visits}" if border == "margin" else ""),
            )
        )
    memory = [max(each.mb for each in one.values()) for one in grown]
    return [
        *figures,
        Figure(
            f"memory of a worker of dedup, last size over first, {what}",
            memory[-1] / memory[0],
            target,
            at_most=True,
            unit="x",
            note="peak of private memory, with torch, MB: " + ", ".join(f"{each:.0f}" for each in memory),
        ),
    ]


@dataclass(frozen=True)
class _Grown:
    """CPU seconds of the stage and its worker, the median of some rounds; MB of the worker at most; visits a row."""

    seconds: float
    mb: float
    visits: float


def _grown(rows: int) -> dict[Border, _Grown]:
    import torch

    torch.set_num_threads(1)
    search._PAIRS, search._ROWS, search._LITTLE = PIECE, ROWS, 0
    setting = Setting.of(topics(rows, 0), max(1, rows // ROWS_PER_CLUSTER))
    rounds: dict[Border, list[tuple[float, float]]] = {border: [] for border in BORDERS}
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _warm) as worker,
    ):
        tables = _tables(setting, Path(folder))
        for border in [*BORDERS] * ROUNDS:
            config = DedupSection(exact=False, hamming=None, epsilon=1 - TAU, border=border, recall_sample=0)
            inputs = _Gather(Path(tempfile.mkdtemp(dir=folder)), tables, worker)
            before = time.process_time()
            for _ in DedupStage(config).process(inputs):
                pass
            taken = time.process_time() - before + sum(piece.seconds for piece in inputs.pieces)
            rounds[border].append((taken, max(piece.mb for piece in inputs.pieces)))
            shutil.rmtree(inputs.scratch)
    return {
        border: _Grown(float(np.median(taken)), max(mb), len(setting.visits(border).rows) / rows)
        for border, (taken, mb) in ((border, zip(*each, strict=True)) for border, each in rounds.items())
    }


def _tables(setting: Setting, folder: Path) -> Path:
    """The clustered, embedded and downloaded rows as files, in shards of rows at random."""
    n = len(setting.rank)
    order = np.random.default_rng(0).permutation(n)
    np.save(folder / "centroids.npy", setting.centroids)
    for number, start in enumerate(range(0, n, SHARD)):
        part = order[start : start + SHARD]
        uids = [f"{i:032x}" for i in part.tolist()]
        flat = pa.array(setting.vectors.stored[part].reshape(-1))
        tables: dict[str, dict[str, Any]] = {
            "cluster": {
                "cluster": setting.cluster[part],
                "centroid_cosine": setting.cosines[part, 0],
                "near_clusters": list(setting.near[part, 1:]),
                "near_cosines": list(setting.cosines[part, 1:]),
            },
            "embed": {"embedding": pa.FixedSizeListArray.from_arrays(flat, setting.vectors.stored.shape[1])},
            "download": {"url": uids},
        }
        for stage, columns in tables.items():
            pq.write_table(pa.table({"uid": uids, **columns}), folder / f"{stage}-{number:05d}.parquet")
    return folder


class _Gather:
    """A GatherInput over files, whose one worker is a process of its own."""

    def __init__(self, scratch: Path, tables: Path, worker: ProcessPoolExecutor) -> None:
        self.scratch, self.kept = scratch, scratch / "kept"
        self.kept.mkdir()
        self.pieces: list[_Done] = []
        self._tables, self._worker = tables, worker

    def shards(self, stage: str) -> list[str]:
        return sorted(path.stem.split("-")[1] for path in self._tables.glob(f"{stage}-*.parquet"))

    def table(self, stage: str, shard: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self._tables / f"{stage}-{shard}.parquet", columns=columns)

    def file(self, stage: str, shard: str, kind: str) -> Path:
        return self._tables / f"{kind}.npy"

    def spread(self, work: Callable[[GatherInput, A], R], items: Sequence[A]) -> Iterator[R]:
        for item in items:
            done = self._worker.submit(_piece, _Seen(self.scratch, self.kept, self._tables), work, item).result()
            self.pieces.append(done)
            yield done.result


class _Seen(_Gather):
    """The same as a worker sees it."""

    def __init__(self, scratch: Path, kept: Path, tables: Path) -> None:
        self.scratch, self.kept, self._tables = scratch, kept, tables


@dataclass(frozen=True)
class _Done:
    result: Any
    seconds: float
    mb: float


def _piece(inputs: GatherInput, work: Callable[[GatherInput, Any], Any], item: Any) -> _Done:
    with watched_memory() as memory:
        before = time.thread_time()
        result = work(inputs, item)
        seconds = time.thread_time() - before
    return _Done(result, seconds, memory.most)


def _warm() -> None:
    import torch

    torch.set_num_threads(1)
