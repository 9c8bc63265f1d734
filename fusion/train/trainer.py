"""transformers' Trainer, with rates by group, rows in an order that seed and epoch decide, and bad rows reported."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from fusion.train.dataset import BadRow, TrainingRows
from fusion.train.order import SeededOrder
from fusion.train.section import TrainSection
from fusion.train.trainable import TrainedGroup
from schemas.errors import RequestError

WHOLE = "whole"
"""An empty file that is written into a checkpoint last; a checkpoint without it was cut short."""


class FusionTrainer(Trainer):
    """Trains a fusion model.

    Args:
        groups: what is trained.
        rows: all rows.
        arguments: of `Trainer`.

    Raises:
        RequestError: more rows are bad than `data.max_bad_rows` allows; raised where a line is logged.
    """

    def __init__(
        self, section: TrainSection, groups: list[TrainedGroup], rows: TrainingRows, out: Path, **arguments: Any
    ) -> None:
        self._section, self._groups, self._rows = section, groups, rows
        self._order = SeededOrder(rows.words, section.group_by_length, section.batch_size, section.seed)
        super().__init__(train_dataset=rows, **arguments)
        self._bad = BadRows(out / f"bad_rows.{self.args.process_index}.jsonl")
        self.remove_callback(PrinterCallback)
        self.add_callback(_Epochs(self._order))
        if not self.is_deepspeed_enabled:
            self.add_callback(_Gradients())

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW; two groups of parameters for each trained group, with and without weight decay."""
        if self.optimizer is None:  # type: ignore[has-type]
            trained = self.model if model is None else model
            # Names of wrapped models may have parts that the bare model's have not.
            parameters = {_bare(name): p for name, p in trained.named_parameters() if p.requires_grad}
            decayed = {_bare(name) for name in self.get_decay_parameter_names(trained)}
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
            made = _parameter_groups(self._groups, parameters, decayed, self.args.weight_decay)
            self.optimizer = kind(made, **options)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        return self._order

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """As Trainer's, less the reports of bad rows, which are written down."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        for batch in batches:
            self._bad.add(batch.pop("bad_rows"))
        return batches, items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's; stops where too many rows were bad, on all processes alike."""
        super().log(logs, start_time)
        count = int(self.accelerator.reduce(torch.tensor(len(self._bad), device=self.args.device)))
        most = self._section.data.max_bad_rows * len(self._rows)
        if count > most:
            raise RequestError(
                f"{count} of {len(self._rows)} rows cannot be used, more than data.max_bad_rows "
                f"({self._section.data.max_bad_rows:g}) allows: {self._bad.told()}. They are listed in "
                f"{self._bad.path}; mend the data, or allow more."
            )

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / WHOLE).touch()


class _Epochs(TrainerCallback):
    """Tells the order which epoch it is; accelerate does not reach it when it skips batches after a resume."""

    def __init__(self, order: SeededOrder) -> None:
        self._order = order

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._order.set_epoch(int(state.epoch or 0))


class _Gradients(TrainerCallback):
    """Gives parameters that nothing looks at, such as a tower's last block, a gradient of zero.

    They do not change by it; but FSDP does not load an optimizer in which a trained parameter has no state.
    """

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for group in kwargs["optimizer"].param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)


class BadRows:
    """The file of rows that one process passed over, each once; it survives a stop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = read_lines(path)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in known), encoding="utf-8")
        self._reasons = {row["row"]: row["reason"] for row in known}

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, found: list[BadRow]) -> None:
        new = [row for row in found if row.row not in self._reasons]
        self._reasons |= {row.row: row.reason for row in new}
        if new:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in new)

    def told(self) -> str:
        """Reasons and how often each."""
        return ", ".join(f"{reason} {count}" for reason, count in counted(list(self._reasons.values())).items())


def counted(reasons: list[str]) -> dict[str, int]:
    """How often each reason is there, the most frequent first."""
    return dict(Counter(sorted(reasons)).most_common())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a last one that was cut short by a kill is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _bare(name: str) -> str:
    return name.replace("_fsdp_wrapped_module.", "").replace("_checkpoint_wrapped_module.", "").removeprefix("module.")


def _parameter_groups(
    groups: list[TrainedGroup], parameters: dict[str, nn.Parameter], decayed: set[str], weight_decay: float
) -> list[dict[str, Any]]:
    made = []
    for group in groups:
        for with_decay in (True, False):
            names = [name for name in group.parameters if (name in decayed) == with_decay]
            if names:
                made.append(
                    {
                        "params": [parameters[name] for name in names],
                        "lr": group.learning_rate,
                        "weight_decay": weight_decay if with_decay else 0.0,
                        "group": group.name,
                    }
                )
    return made
