"""`verify`: is what the commit records say still true of the bytes? `gc`: what no commit names goes away."""

from dataclasses import dataclass

from pipeline.plan import StagePlan
from pipeline.storage import Storage
from pipeline.store import GATHER, Store
from schemas.commit import CommitRecord
from stages.base import Stage


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    stage: str
    shard: str
    what: str

    def __str__(self) -> str:
        return f"{self.stage} {self.shard}: {self.what}"


def verify_store(storage: Storage, stages: list[Stage], plans: list[StagePlan]) -> list[Problem]:
    """Read every committed object: present, whole, of the stated rows; rows balance; when done, every row ends once."""
    store = Store(storage)
    problems: list[Problem] = []
    for stage in stages:
        for shard, record in store.commits(stage.name).items():
            problems += _check_record(store, shard, record)
    if not problems and not unfinished(plans):
        problems += _check_rows_end_once(store, stages)
    return problems


def withdraw_broken(storage: Storage, problems: list[Problem]) -> list[Problem]:
    """Take back the commits of broken shards, so that the next run makes them anew. Returns those withdrawn."""
    store = Store(storage)
    broken = [p for p in problems if store.commit(p.stage, p.shard) is not None]
    for problem in broken:
        store.withdraw(problem.stage, problem.shard)
    return broken


def collect_garbage(storage: Storage, stages: list[Stage]) -> tuple[int, int]:
    """Delete data and ledger objects that no commit names, and scratch files of attempts that died.

    Returns (how many, bytes). Only while no runner runs.
    """
    store = Store(storage)
    count, size = storage.drop_scratch()
    for stage in stages:
        named = {
            item.key
            for record in store.commits(stage.name).values()
            for item in [*record.objects, *([record.ledger] if record.ledger else [])]
        }
        for folder in ("data", "ledger", "attempts"):
            for key in storage.list(f"{stage.name}/{folder}"):
                if key not in named:
                    count, size = count + 1, size + storage.size(key)
                    storage.delete(key)
    return count, size


def unfinished(plans: list[StagePlan]) -> list[str]:
    """Stages that still have work, for whoever asks for a finished run."""
    return [item.name for item in plans if item.rerun]


def _check_record(store: Store, shard: str, record: CommitRecord) -> list[Problem]:
    found = []
    if record.rows_in != record.rows_out + sum(record.dropped.values()):
        found.append("rows in are not rows out plus rows dropped")
    for item in [*record.objects, *([record.ledger] if record.ledger else [])]:
        try:
            if store.storage.size(item.key) != item.bytes:
                found.append(f"{item.key} has {store.storage.size(item.key)} bytes, the commit says {item.bytes}")
            elif store.storage.sha256(item.key) != item.sha256:
                found.append(f"{item.key} does not have the committed sha256")
            elif item.rows is not None and store.read_table(item, []).num_rows != item.rows:
                found.append(f"{item.key} does not hold the {item.rows} rows that the commit says")
        except FileNotFoundError:
            found.append(f"{item.key} is missing")
    return [Problem(record.stage, shard, what) for what in found]


def _check_rows_end_once(store: Store, stages: list[Stage]) -> list[Problem]:
    """Every row that came in is in the last stage's rows or in one ledger, never in two places, never nowhere."""
    first, last = stages[0].name, stages[-1].name
    ended: dict[str, str] = {}
    problems = []
    places = [(f"the ledger of {s.name}", table) for s in stages for table in store.ledger(s.name)]
    places += [(f"the rows of {last}", store.table(last, shard, ["uid"])) for shard in store.shards(last)]
    for place, table in places:
        for uid in table.column("uid").to_pylist():
            if uid in ended:
                problems.append(Problem(last, GATHER, f"uid {uid} is in {ended[uid]} and in {place}"))
            ended[uid] = place
    came_in = sum(record.rows_in for record in store.commits(first).values())
    if len(ended) != came_in:
        problems.append(
            Problem(last, GATHER, f"{came_in} rows came in, {len(ended)} are in the dataset or in a ledger")
        )
    return problems
