"""Live progress per stage: shards, rows, rows/s, time left, drops by reason; read from the commit records."""

import threading
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.plan import StagePlan
from pipeline.storage import Storage
from pipeline.store import Store
from schemas.commit import CommitRecord

LOG_EVERY_SECONDS = 10.0
COLUMNS = {"stage": 19, "shards": 7, "rows in": 9, "rows out": 9, "rows/s": 8, "left": 8, "dropped": 20}
"""Titles and least widths of the live table."""


@dataclass
class StageProgress:
    """Commits of one stage since the segment began."""

    name: str
    waiting: dict[str, str | None]
    shards: int
    rows_in: int = 0
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first: float = 0.0
    last: float = 0.0
    unchanged: int = 0

    def poll(self, store: Store) -> None:
        """Take in what was committed since the last look. `waiting` maps a shard to its attempt before this run."""
        present = set(store.committed(self.name))
        for shard, before in list(self.waiting.items()):
            record = store.commit(self.name, shard) if shard in present else None
            if record is not None and record.attempt != before:
                self.add(record)
                del self.waiting[shard]

    def settle(self, store: Store) -> None:
        """At the end: shards whose inputs turned out as they were keep the commit they had."""
        for shard, before in list(self.waiting.items()):
            if before is not None and store.failure(self.name, shard) is None:
                self.unchanged += 1
                del self.waiting[shard]

    def add(self, record: CommitRecord) -> None:
        self.first = min(self.first or record.started, record.started)
        self.last = max(self.last, record.started + record.seconds)
        self.rows_in += record.rows_in
        self.rows_out += record.rows_out
        for reason, count in record.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    @property
    def done(self) -> int:
        return self.shards - len(self.waiting)

    @property
    def rate(self) -> float:
        """Rows per second of wall time, since this stage's first shard began."""
        return self.rows_in / max(self.last - self.first, 1e-3) if self.rows_in else 0.0

    @property
    def seconds_left(self) -> float | None:
        if self.done == self.unchanged or not self.waiting:
            return None
        return (self.last - self.first) / self.done * len(self.waiting)

    def cells(self) -> tuple[str, ...]:
        left = f"{self.seconds_left:,.0f} s" if self.seconds_left is not None else ("" if self.waiting else "done")
        drops = ", ".join(f"{reason} {n}" for reason, n in sorted(self.dropped.items(), key=lambda p: -p[1]))
        rate = f"{self.rate:,.1f}" if self.rows_in else ""
        return self.name, f"{self.done}/{self.shards}", f"{self.rows_in:,}", f"{self.rows_out:,}", rate, left, drops

    def line(self) -> str:
        name, shards, rows_in, rows_out, rate, _, drops = self.cells()
        if self.unchanged == self.shards:
            return f"{name}: {shards} shards, as they were"
        rows = f", {rows_in} rows in, {rows_out} out" + (f", {rate} rows/s" if rate else "")
        return f"{name}: {shards} shards{rows}{f'; dropped: {drops}' if drops else ''}"


class LiveProgress:
    """Observer of a run on a console: a live table on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, storage: Storage) -> None:
        self.console = console
        self.store = Store(storage)
        self.shown: list[StageProgress] = []
        self._segments = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def planned(self, plans: list[StagePlan]) -> None:
        redone = [item for item in plans if item.changes]
        for item in redone:
            self.console.print(f"[yellow]{item.name}[/] will be done again ({item.rerun} shards), because:")
            for line in item.changes:
                self.console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)

    def segment_started(self, stages: list[str], plans: dict[str, StagePlan]) -> None:
        self.shown = []
        self._segments += 1
        for name in stages:
            before = {shard: self.store.commit(name, shard) for shard in plans[name].pending}
            waiting = {shard: record.attempt if record else None for shard, record in before.items()}
            self.shown.append(StageProgress(name, waiting, len(waiting)))
        self._stop.clear()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
        self._thread.start()

    def segment_ended(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _show(self) -> None:
        if not self.console.is_terminal:
            self._log()
            return
        with Live(self._table(), console=self.console, refresh_per_second=4) as live:
            while True:
                stopped = self._stop.wait(self._poll())
                live.update(self._table())
                if stopped:
                    self._last_look()
                    live.update(self._table())
                    return

    def _log(self) -> None:
        said: dict[str, str] = {}
        last = time.monotonic()
        while True:
            stopped = self._stop.wait(self._poll())
            finished = {stage.name for stage in self.shown if not stage.waiting}
            if stopped:
                self._last_look()
            due = stopped or time.monotonic() - last > LOG_EVERY_SECONDS or finished - said.keys()
            if due:
                last = time.monotonic()
                for stage in self.shown:
                    line = stage.line()
                    if said.get(stage.name) != line and (stage.done or stopped):
                        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
                        said[stage.name] = line
            if stopped:
                return

    def _poll(self) -> float:
        """Look at the store; returns how long to wait before the next look, so that looking stays cheap."""
        began = time.monotonic()
        for stage in self.shown:
            if stage.waiting:
                stage.poll(self.store)
        return max(0.5, 10 * (time.monotonic() - began))

    def _last_look(self) -> None:
        self._poll()
        for stage in self.shown:
            stage.settle(self.store)

    def _table(self) -> Table:
        """One table a segment; equal widths make them read as one."""
        table = Table(box=None, pad_edge=False, header_style="bold", show_header=self._segments == 1)
        for title, width in COLUMNS.items():
            left = title in ("stage", "dropped")
            table.add_column(title, justify="left" if left else "right", min_width=width, overflow="fold")
        for stage in self.shown:
            table.add_row(*stage.cells())
        return table
