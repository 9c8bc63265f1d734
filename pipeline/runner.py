"""The runner: plans, checks, hands shards to Ray, and says what failed. Scheduling is Ray's; commits are ours."""

import contextlib
import time
import uuid
import warnings
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Protocol

from cluster.capacity import StageDemand, check_capacity, cluster_capacity
from cluster.profiles import NodeGroup, grown
from cluster.session import connect
from pipeline.config import Config, save_run
from pipeline.graph import build_stages, segments
from pipeline.identities import save_identities
from pipeline.lease import Lease
from pipeline.plan import StagePlan, plan, withdraw_leftovers
from pipeline.storage import Storage, open_storage
from pipeline.store import Store
from pipeline.worker import gather, worker_class
from schemas.commit import FailureRecord
from schemas.errors import IncompleteRunError, RequestError, SetupError
from stages.base import GatherStage, Stage


class Observer(Protocol):
    """Whoever shows the run to a person."""

    def planned(self, plans: list[StagePlan]) -> None: ...

    def segment_started(self, stages: list[str], plans: dict[str, StagePlan]) -> None: ...

    def segment_ended(self) -> None: ...


@dataclass
class Result:
    """How a run ended.

    Attributes:
        did: stages that had work, in order.
        failures: shards that were given up.
    """

    did: list[str] = field(default_factory=list)
    failures: list[FailureRecord] = field(default_factory=list)


def run(config: Config, location: str, observer: Observer, until: str | None = None) -> Result:
    """Run or resume until everything is committed, or until what failed keeps the rest from being done.

    Args:
        until: name of the last stage to be done; None does all.

    Raises:
        RequestError: the request is wrong (nothing was started).
        SetupError: a stage cannot start, or go on, on any worker; what was committed stays.
    """
    storage = open_storage(location)
    location = storage.location
    with Lease(storage) as lease:
        stages = build_stages(config)
        wanted = _up_to(stages, until)
        for stage in wanted:
            stage.check()
        # In this order a kill in between leaves a run that has work to do, never one that looks done.
        save_identities(storage, stages)
        save_run(location, config)
        plans = plan(storage, stages)
        withdraw_leftovers(Store(storage), plans)
        plans = plans[: len(wanted)]
        observer.planned(plans)
        result = Result()
        if not any(item.rerun for item in plans):
            return result
        with connect(config.ray.address, num_cpus=config.ray.cpus, num_gpus=config.ray.gpus):
            _check_resources(wanted, plans, config.ray.groups)
            for segment in segments(wanted):
                _run_segment(storage, location, config, stages, segment, result, observer, lease)
                if result.failures:
                    break
    return result


def _up_to(stages: list[Stage], until: str | None) -> list[Stage]:
    """The stages up to the one that is named. Raises RequestError where none is."""
    names = [stage.name for stage in stages]
    if until is None:
        return stages
    if until not in names:
        raise RequestError(f"This run has no stage `{until}` to stop after; its stages are {', '.join(names)}.")
    return stages[: names.index(until) + 1]


def _run_segment(
    storage: Storage,
    location: str,
    config: Config,
    stages: list[Stage],
    segment: list[Stage],
    result: Result,
    observer: Observer,
    lease: Lease,
) -> None:
    # A gather's output decides what the next stages have to do, so the plan is made anew at every border.
    plans = {item.name: item for item in plan(storage, stages) if item.name in {stage.name for stage in segment}}
    store = Store(storage)
    withdraw_leftovers(store, plans.values())
    busy = [stage for stage in segment if plans[stage.name].pending]
    if not busy:
        return
    # These shards are tried again: what they failed of before says nothing of how they end now.
    for stage in busy:
        for shard in plans[stage.name].pending:
            store.clear_failure(stage.name, shard)
    session = uuid.uuid4().hex
    result.did += [stage.name for stage in busy]
    observer.segment_started([stage.name for stage in busy], plans)
    states = (
        _gather(location, busy[0], session)
        if isinstance(busy[0], GatherStage)
        else _stream(location, config, busy, plans, session)
    )
    try:
        # Left open, it would end only after Ray has, and print a traceback under the error.
        with contextlib.closing(states):
            for state in states:
                if lease.lost.is_set():
                    raise RequestError("Another runner has taken this run directory over; this one stops.")
                if state == "setup":
                    break
    finally:
        observer.segment_ended()
    result.failures += _given_up(storage, store, stages, busy)


def _gather(location: str, stage: Stage, session: str) -> Generator[str]:
    import ray

    asked = stage.config.resources
    task = ray.remote(gather).options(
        num_cpus=asked.cpus, num_gpus=asked.gpus, memory=asked.memory, max_retries=2, name=stage.name
    )
    try:
        yield ray.get(task.remote(location, stage.name, session))
    except ray.exceptions.WorkerCrashedError:
        yield "failed"


def _stream(
    location: str, config: Config, stages: list[Stage], plans: dict[str, StagePlan], session: str
) -> Generator[str]:
    """Shard references through one actor pool a stage; yields each reference's last state."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A block is one shard reference. Losing one is not losing rows: the commit records say what is missing.
    context.max_errored_blocks = -1
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = int(config.run.no_progress_hours * 3600)
    deaths = config.run.worker_deaths
    shards = sorted({shard for item in plans.values() for shard in item.pending})
    refs = ray.data.from_items([{"shard": s, "state": "done"} for s in shards], override_num_blocks=len(shards))
    # Ray deprecates the general form of these two arguments before it names them.
    warnings.filterwarnings("ignore", message="`ray_remote_args`")
    for stage in stages:
        asked = stage.config.resources
        refs = refs.map_batches(
            worker_class(stage.name),
            fn_constructor_args=(location, stage.name, session),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=min(asked.workers.min, len(shards)),
                max_size=min(asked.workers.max, len(shards)),
                max_tasks_in_flight_per_actor=2,
            ),
            num_cpus=asked.cpus,
            num_gpus=asked.gpus,
            memory=asked.memory,
            max_restarts=deaths,
            max_task_retries=deaths,
        )
    for batch in refs.iter_batches(batch_size=None, prefetch_batches=0):
        yield from batch["state"]


def _given_up(storage: Storage, store: Store, stages: list[Stage], segment: list[Stage]) -> list[FailureRecord]:
    """Failure records of the shards of a segment that are still pending; writes one where a worker left none."""
    failures: list[FailureRecord] = []
    blocked: set[str] = set()
    for item in plan(storage, stages):
        if item.name not in {stage.name for stage in segment}:
            continue
        for shard in item.pending:
            failure = store.failure(item.name, shard)
            if failure is None and shard not in blocked:
                failure = FailureRecord(
                    stage=item.name,
                    shard=shard,
                    error="The workers that took this shard died. Memory, a crash in native code or a lost node are "
                    "the usual reasons; Ray's logs on the node say which.",
                    traceback="",
                    attempts=0,
                    setup=False,
                    time=time.time(),
                )
                store.record_failure(failure)
            if failure is not None:
                failures.append(failure)
                blocked.add(shard)
    for failure in failures:
        if failure.setup:
            raise SetupError(f"{failure.stage} cannot go on. {failure.error}")
    return failures


def _check_resources(stages: list[Stage], plans: list[StagePlan], groups: list[NodeGroup]) -> None:
    """Hold what each segment asks for against what the cluster has or may grow to, before anything starts."""
    capacity = grown(cluster_capacity(), groups)
    waiting = {item.name for item in plans if item.rerun}
    for segment in segments(stages):
        demands = [StageDemand(s.name, s.config.resources) for s in segment if s.name in waiting]
        if demands:
            # References come from memory: unlike Ray Data's readers they need no idle CPU.
            check_capacity(demands, capacity, cpu_headroom=0)


def retry(config: Config, location: str, observer: Observer) -> Result:
    """Run, where a shard has failed. Raises IncompleteRunError where none has."""
    store = Store(open_storage(location))
    if not any(store.failures(stage.name) for stage in build_stages(config)):
        raise IncompleteRunError(f"No shard of {location} has failed. `densefusion run` goes on with what is missing.")
    return run(config, location, observer)
