"""An engine that is killed, hangs, and answers 500, 429, garbage or half of something, while it captions."""

import random
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.caption.misbehaving import SHARE_VARIABLE, Misbehaving
from benchmarks.caption.scenes import GivenPriors, SceneRows, section
from stages.base import ShardOutput
from stages.caption import CaptionStage

_SHARD_ROWS = 24
_CONCURRENCY = 4
_STALL_S, _HEALTH_S = 10.0, 10.0
_LEAST_S, _MOST_S = 0.5, 4.0


def trouble(
    model: Path, scratch: Path, rows: SceneRows, kills: int, hangs: int, share: float, seed: int = 0
) -> dict[str, Any]:
    """All rows, shard by shard, while the server is felled: each time it has answered, after a random while.

    Args:
        kills, hangs: SIGKILL and SIGSTOP to the server's process, in random order; with few rows some do not come.
        share: of the requests that are answered badly.
    """
    engine = {
        "env": {SHARE_VARIABLE: str(share)},
        "extra_args": ["--middleware", f"{Misbehaving.__module__}.{Misbehaving.__name__}"],
        "stall_timeout_s": _STALL_S,
        "health_timeout_s": _HEALTH_S,
        "max_restarts": kills + hangs + 1,
    }
    config = section(model, engine, concurrency=_CONCURRENCY, retries=8, reject_on=[])
    stage = CaptionStage(config, GivenPriors())
    stage.open()
    outputs: list[ShardOutput] = []
    try:
        stage.connect()
        signals = [signal.SIGKILL] * kills + [signal.SIGSTOP] * hangs
        random.Random(seed).shuffle(signals)
        hitman = _Feller(stage, signals, random.Random(seed))
        hitman.start()
        for start in range(0, len(rows.images), _SHARD_ROWS):
            outputs.append(stage.process(rows.shard(scratch, range(start, min(start + _SHARD_ROWS, len(rows.images))))))
        hitman.finish()
    finally:
        stage.close()
    done = {"killed": hitman.done[signal.SIGKILL], "hung": hitman.done[signal.SIGSTOP]}
    return _account(rows, outputs) | done | {"to_fell": kills + hangs}


def _account(rows: SceneRows, outputs: list[ShardOutput]) -> dict[str, Any]:
    """What became of the rows: each must be captioned or dropped, once."""
    ends = Counter(uid for output in outputs for uid in output.rows.column("uid").to_pylist())
    dropped = Counter(str(drop.reason) for output in outputs for drop in output.drops)
    ends.update(drop.uid for output in outputs for drop in output.drops)
    wanted = {row["uid"] for row in rows.select}
    return {
        "rows": len(wanted),
        "ended_once": sum(ends[uid] == 1 for uid in wanted),
        "captioned": sum(output.rows.num_rows for output in outputs),
        "dropped": dict(dropped),
        "restarts": int(sum(output.metrics["engine_restarts"] for output in outputs)),
        "answers_asked": int(sum(output.metrics["answers_asked"] for output in outputs)),
    }


class _Feller(threading.Thread):
    """Signals the server's process, a random while after it has come up again, until the signals are spent."""

    def __init__(self, stage: CaptionStage, signals: list[signal.Signals], rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._stage, self._signals, self._rng = stage, list(signals), rng
        self._over = threading.Event()
        self.done: Counter[signal.Signals] = Counter()

    def finish(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        last: object = None
        while self._signals and not self._over.wait(0.2):
            server = self._stage.connect().server
            progress = server.progress() if server is not None else None
            if progress is None or progress == last:
                continue
            last = progress
            if self._over.wait(self._rng.uniform(_LEAST_S, _MOST_S)):
                return
            for process in _servers():
                process.send_signal(self._signals[0])
                self.done[self._signals.pop(0)] += 1
                break


def _servers() -> list[psutil.Process]:
    """vLLM's API servers below this process, first processes of their trees."""
    below = psutil.Process().children(recursive=True)
    return [p for p in below if "api_server" in " ".join(_words(p)) and "guardian" not in " ".join(_words(p))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
