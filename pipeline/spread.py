"""What a gather spreads, done by Ray actors that hold the stage's resources.

The gather itself holds one worker's resources, so `workers.max - 1` actors are asked for. They join when they are up;
where none is up within a while, the gather does item after item itself: nothing waits for ever for a place.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.gather import GatherReader, done_here
from pipeline.storage import open_storage
from pipeline.store import Store
from schemas.section import Resources
from stages.base import A, GatherInput, R

AHEAD = 2
"""Items given to a worker at once, so that it never waits for the next."""
PATIENCE = 20.0
"""Seconds that a gather waits for the first worker before it does an item itself; a process is up within ten."""
DEATHS = 2
"""Workers that may die over one item; the gather's own retries come on top."""


class PieceWorker:
    """One process that does items."""

    def __init__(self, location: str, scratch: Path, kept: Path) -> None:
        self._reader = GatherReader(Store(open_storage(location)), scratch, kept)

    def ready(self) -> None:
        """Answered once the process is up."""

    def do(self, work: Callable[[GatherInput, A], R], item: A) -> R:
        return work(self._reader, item)


class RaySpread:
    """Spreads over actors; with one worker, or one item, it all happens in the gather's own process.

    Args:
        location: of the run directory.
        resources: of one worker.
        patience: seconds to wait for the first worker.
    """

    def __init__(self, location: str, resources: Resources, patience: float = PATIENCE) -> None:
        self.location = location
        self.patience = patience
        self.resources = resources

    def __call__(self, reader: GatherReader, work: Callable[[GatherInput, A], R], items: Sequence[A]) -> Iterator[R]:
        """Raises what `work` raised, or RayActorError for an item over which workers die."""
        workers = min(self.resources.workers.max - 1, len(items))
        if workers < 1 or len(items) < 2:
            yield from done_here(reader, work, items)
            return
        pool = _Pool(self, reader, workers)
        try:
            yield from pool.results(reader, work, items)
        finally:
            pool.close()

    def start(self, reader: GatherReader) -> Any:
        """A new actor."""
        import ray

        asked = self.resources
        actor = ray.remote(PieceWorker).options(num_cpus=asked.cpus, num_gpus=asked.gpus, memory=asked.memory)
        return actor.remote(self.location, reader.scratch, reader.kept)


class _Pool:
    """Actors that are up, those that are not yet, and what each was given."""

    def __init__(self, spread: RaySpread, reader: GatherReader, workers: int) -> None:
        self._spread = spread
        self._reader = reader
        self._coming: dict[Any, Any] = {}
        self._given: dict[Any, tuple[Any, int]] = {}
        self._up: list[Any] = []
        self._patient_until = time.monotonic() + spread.patience
        for _ in range(workers):
            self._start()

    def results(self, reader: GatherReader, work: Callable[[GatherInput, A], R], items: Sequence[A]) -> Iterator[R]:
        import ray

        todo = deque(range(len(items)))
        done: dict[int, Any] = {}
        deaths = [0] * len(items)
        for turn in range(len(items)):
            while turn not in done:
                self._join(0)
                # A window over the items bounds what waits for its turn.
                window = turn + 2 * AHEAD * (len(self._up) + 1)
                for actor in self._up:
                    while todo and todo[0] < window and self._load(actor) < AHEAD:
                        number = todo.popleft()
                        self._given[actor.do.remote(work, items[number])] = (actor, number)
                if not self._given:
                    if self._join(max(0.0, self._patient_until - time.monotonic())):
                        continue
                    number = todo.popleft()
                    done[number] = work(reader, items[number])
                    continue
                ready, _ = ray.wait(list(self._given), num_returns=1, timeout=1.0)
                for reference in ready:
                    actor, number = self._given.pop(reference)
                    try:
                        done[number] = ray.get(reference)
                    except ray.exceptions.RayActorError:
                        deaths[number] += 1
                        if deaths[number] > DEATHS:
                            raise
                        self._bury(actor)
                        todo.appendleft(number)
            yield done.pop(turn)

    def close(self) -> None:
        import ray

        for actor in [*self._up, *self._coming.values()]:
            ray.kill(actor)

    def _start(self) -> None:
        actor = self._spread.start(self._reader)
        self._coming[actor.ready.remote()] = actor

    def _join(self, timeout: float) -> bool:
        """Take in the actors that have come up; waits for the first at most `timeout` seconds. False: none is up."""
        import ray

        if self._coming:
            ready, _ = ray.wait(list(self._coming), num_returns=1 if timeout else len(self._coming), timeout=timeout)
            for reference in ready:
                actor = self._coming.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayActorError:
                    continue  # it died before it was up; the others, or the gather, do its work
                self._up.append(actor)
        return bool(self._up)

    def _load(self, actor: Any) -> int:
        return sum(holder is actor for holder, _ in self._given.values())

    def _bury(self, actor: Any) -> None:
        """Another one for an actor that died; what else it was given comes back as dead too, each once."""
        if actor in self._up:
            self._up.remove(actor)
            self._start()
