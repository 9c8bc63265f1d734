"""The training's log: a JSON line every few steps in `log.jsonl`, and the same on the terminal."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fusion.train.trainer import read_lines

_KEPT = ("loss", "grad_norm", "learning_rate")


class Log(TrainerCallback):
    """Writes step, epoch, the mean loss of an answer token since the line before, the gradient's norm before it is cut,
    the first group's learning rate, rows a second since the line before, and seconds of training, all resumes together.
    """

    def __init__(self, path: Path, batch_size: int) -> None:
        self._path, self._batch_size = path, batch_size

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Lines later than the checkpoint that the training goes on from are dropped: those steps come again."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_lines(self._path) if line["step"] <= state.global_step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._before = kept[-1]["seconds"] if kept else 0.0
        self._begun = self._marked = time.perf_counter()
        self._step = state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not state.is_world_process_zero or logs is None or "loss" not in logs:
            return
        now = time.perf_counter()
        line = {
            "step": state.global_step,
            "epoch": round(state.epoch or 0.0, 4),
            **{name: float(logs[name]) for name in _KEPT if name in logs},
            "rows_per_second": round((state.global_step - self._step) * self._batch_size / (now - self._marked), 2),
            "seconds": round(self._before + now - self._begun, 1),
        }
        self._marked, self._step = now, state.global_step
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        sys.stderr.write(
            f"step {line['step']:,}/{state.max_steps:,}  loss {line['loss']:.4f}  rate {line['learning_rate']:.2e}  "
            f"{line['rows_per_second']:g} rows/s\n"
        )
