"""A training from settings to a saved model; killed at any moment, the same call goes on."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments, set_seed
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import logging as transformers_logging

from fusion.model import register
from fusion.model.assembly import Assembled, Images, from_checkpoint, from_llava, from_parts
from fusion.train.card import Facts, card
from fusion.train.chat_template import ChatTemplate
from fusion.train.dataset import RowCollator, TrainingRows
from fusion.train.encoding import Collator, Encoder
from fusion.train.log import Log
from fusion.train.section import TrainSection
from fusion.train.sharding import deepspeed_config, fsdp_config
from fusion.train.sources import source_of
from fusion.train.trainable import TrainedGroup, described, set_trainable
from fusion.train.trainer import WHOLE, FusionTrainer, counted, read_lines
from schemas.errors import RequestError, SetupError
from schemas.section import ModelRef

_IDENTITY, _LOG, _MODEL = "training.json", "log.jsonl", "model"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        model: folder of the finished model.
        loss: of the log's last line, None where nothing was logged.
        bad_rows: rows that could not be used, by reason.
        trained: parameters by group.
        seconds: of training, all resumes together.
    """

    model: str
    steps: int
    epochs: float
    loss: float | None
    rows: int
    bad_rows: dict[str, int]
    trained: dict[str, int]
    frozen: int
    seconds: float


def train(section: TrainSection, command: str) -> Outcome | None:
    """Train, or go on from the last whole checkpoint in `output`.

    Leaves there `checkpoint-*`, `log.jsonl`, `bad_rows.*.jsonl`, and at the end `model`, which `from_pretrained` and
    `vllm serve` take.

    Args:
        command: what was typed, for the card.

    Returns:
        None on processes other than the first.

    Raises:
        RequestError: settings, data or parts that do not go together; a checkpoint of another training.
        SetupError: weights that do not load, a library that is missing.
    """
    training = prepare(section)
    trainer, out = training.trainer, Path(section.output)
    if trainer.args.should_save:
        sys.stderr.write(f"{described(training.assembled.model, training.groups)}\n{len(training.rows):,} rows\n")
    last = _last_whole(out)
    if last is None or not _finished(last):
        trainer.train(resume_from_checkpoint=str(last) if last is not None else None)
        last = _last_whole(out)
    trainer.accelerator.wait_for_everyone()
    if not trainer.args.should_save:
        return None
    assert last is not None
    unset_hf_deepspeed_config()  # the finished model is loaded whole, by this process alone
    outcome = _outcome(out, last, training)
    _save_model(out, last, section, outcome, training, command)
    return outcome


@dataclass(frozen=True)
class Training:
    """A training that is ready to start."""

    assembled: Assembled
    groups: list[TrainedGroup]
    rows: TrainingRows
    trainer: FusionTrainer


def prepare(section: TrainSection) -> Training:
    """Everything up to the first step: data looked at, model assembled, what is frozen frozen.

    Raises:
        As `train`.
    """
    if not find_spec("accelerate"):
        raise SetupError("Training needs accelerate, which is not installed here: pip install 'densefusion[train]'.")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    register()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    accumulation = section.accumulation(processes)
    if section.sharding == "fsdp" and (processes == 1 or not _on_gpu(section)):
        raise RequestError(
            f"sharding fsdp needs several GPUs, one a process; here are {processes} processes"
            f"{'' if _on_gpu(section) else ' without a GPU'}. Start it with `accelerate launch -m fusion.train`, or "
            "set sharding to none."
        )
    if section.precision == "fp16" and not _on_gpu(section):
        raise RequestError("precision fp16 needs a GPU, and none is used here. Set precision to bf16 or fp32.")
    deepspeed = deepspeed_config(section)
    sources = [source_of(one) for one in section.data.sources]  # a wrong path is known before weights are loaded
    out = Path(section.output)
    out.mkdir(parents=True, exist_ok=True)
    set_seed(section.seed)  # the row that a language model may get for the image token
    assembled = _assembled(section)
    model, processor = assembled.model, assembled.processor
    template = ChatTemplate(section.template, processor.tokenizer)
    processor.chat_template = processor.tokenizer.chat_template = template.source
    _check_length(section, model.config.text_config)
    groups = set_trainable(model, section)
    if section.sharding == "none" and section.precision != "fp32":
        _lower_frozen(model, _DTYPES[section.precision])
    # After the model: once ZeRO-3 is known, transformers cuts weights up while it loads them, under towers of timm that
    # then fail to make themselves.
    arguments = _arguments(section, accumulation, deepspeed, fsdp_config(section, model))
    limits = [one.limit for one in section.data.sources]
    rows = TrainingRows(sources, limits, Encoder(processor, template, section.max_length), section.seed)
    rows.look()
    _keep_identity(out / _IDENTITY, section, rows, arguments.should_save)
    trainer = FusionTrainer(
        section,
        groups,
        rows,
        out,
        model=model,
        args=arguments,
        data_collator=RowCollator(Collator(processor.tokenizer.pad_token_id)),
        processing_class=processor,
        callbacks=[Log(out / _LOG, section.batch_size)],
    )
    return Training(assembled, groups, rows, trainer)


def _assembled(section: TrainSection) -> Assembled:
    given = section.model
    images = Images(given.fit, given.image_mean, given.image_std, given.max_boxes)
    pinpoints = [list(point) for point in given.image_grid_pinpoints or []] or None
    if given.vision is not None and given.text is not None:
        return from_parts(
            given.vision,
            given.text,
            given.detail,
            given.connector or "mlp",
            given.connector_options,
            pinpoints,
            images,
            section.seed,
        )
    if given.llava is not None:
        assembled = from_llava(given.llava, images)
    else:
        assert given.checkpoint is not None
        assembled = from_checkpoint(given.checkpoint, images)
    asked = {
        "connector": given.connector,
        "connector_options": given.connector_options or None,
        "image_grid_pinpoints": pinpoints,
    }
    for name, value in asked.items():
        found = getattr(assembled.model.config, name)
        if value is not None and value != found:
            raise RequestError(
                f"model.{name} is {value!r}, but what the training starts from has {found!r}. Leave the setting out, "
                "or start from parts."
            )
    return assembled


def _on_gpu(section: TrainSection) -> bool:
    return section.device == "auto" and torch.cuda.is_available()


def _arguments(
    section: TrainSection,
    accumulation: int,
    deepspeed: dict[str, Any] | None,
    fsdp: dict[str, Any] | None,
) -> TrainingArguments:
    on_gpu = _on_gpu(section)
    arguments = TrainingArguments(
        output_dir=section.output,
        per_device_train_batch_size=section.per_device_batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=section.epochs,
        max_steps=section.max_steps or -1,
        learning_rate=section.learning_rate,
        lr_scheduler_type=_SCHEDULES[section.schedule],
        warmup_steps=section.warmup_ratio,
        weight_decay=section.weight_decay,
        adam_beta1=section.betas[0],
        adam_beta2=section.betas[1],
        max_grad_norm=section.clip_norm,
        bf16=section.precision == "bf16",
        fp16=section.precision == "fp16",
        tf32=True if on_gpu and section.precision != "fp32" else None,
        # FSDP checkpoints its own units.
        gradient_checkpointing=section.gradient_checkpointing and fsdp is None,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=section.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=section.save_every,
        save_total_limit=section.keep,
        seed=section.seed,
        use_cpu=not on_gpu,
        dataloader_num_workers=section.data.workers,
        dataloader_pin_memory=on_gpu,
        dataloader_persistent_workers=section.data.workers > 0,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        deepspeed=deepspeed,
        fsdp=True if fsdp else None,
        fsdp_config=fsdp,
        # A tower's blocks behind the layer that is looked at get no gradient.
        ddp_find_unused_parameters=True,
    )
    if arguments.n_gpu > 1:  # one process, several GPUs: Trainer would split batches with DataParallel
        sys.stderr.write(f"1 of {arguments.n_gpu} GPUs is used; `accelerate launch -m fusion.train` uses all.\n")
        arguments._n_gpu = 1
    return arguments


def _check_length(section: TrainSection, text_config: Any) -> None:
    longest = getattr(text_config, "max_position_embeddings", None)
    if longest is not None and section.max_length > longest:
        raise RequestError(
            f"max_length is {section.max_length}, but the language model knows {longest} positions. Lower max_length."
        )


def _lower_frozen(model: Any, dtype: torch.dtype) -> None:
    """Parts that are not trained at all need no float32 copy."""
    towers = model.vision.towers
    for part in (towers.vision, towers.detail, model.vision.connector, model.language_model):
        if part is not None and not any(parameter.requires_grad for parameter in part.parameters()):
            part.to(dtype)


def _keep_identity(path: Path, section: TrainSection, rows: TrainingRows, first: bool) -> None:
    """What decides the weights, written at the start and held against on a resume.

    Raises:
        RequestError: the folder is of another training.
    """
    now = {**section.decides(), "model": section.model.model_dump(mode="json")}
    now |= {"rows": rows.sizes, "bytes": rows.bytes}
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if names:
            changes = ", ".join(f"{name} was {before.get(name)!r} and is now {now.get(name)!r}" for name in names)
            raise RequestError(
                f"{path.parent} is of another training: {changes}. Give the same settings again to go on with it, or "
                "another `output` to start anew."
            )
    elif first:
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)


def _last_whole(out: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    steps = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in out.glob("checkpoint-*")
        if (path / WHOLE).is_file()
    }
    return steps[max(steps)] if steps else None


def _state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def _finished(checkpoint: Path) -> bool:
    state = _state(checkpoint)
    return state["global_step"] >= state["max_steps"]


def _outcome(out: Path, last: Path, training: Training) -> Outcome:
    state = _state(last)
    lines = read_lines(out / _LOG)
    bad = {row["row"]: row["reason"] for file in sorted(out.glob("bad_rows.*.jsonl")) for row in read_lines(file)}
    trained: dict[str, int] = {group.name: group.size for group in training.groups}
    sizes = [getattr(one, "ds_numel", one.numel()) for one in training.assembled.model.parameters()]
    return Outcome(
        model=str(out / _MODEL),
        steps=state["global_step"],
        epochs=state["epoch"],
        loss=lines[-1]["loss"] if lines else None,
        rows=len(training.rows),
        bad_rows=counted(list(bad.values())),
        trained=trained,
        frozen=sum(sizes) - sum(trained.values()),
        seconds=lines[-1]["seconds"] if lines else 0.0,
    )


def _save_model(
    out: Path, last: Path, section: TrainSection, outcome: Outcome, training: Training, command: str
) -> None:
    """The last checkpoint's weights as a model with processor and card; whole or not at all."""
    draft, model = out / f"{_MODEL}.draft", training.assembled.model
    shutil.rmtree(draft, ignore_errors=True)
    try:
        finished = from_checkpoint(ModelRef(model=str(last))).model
    except SetupError as error:
        raise SetupError(f"The training ended, but its last checkpoint does not load. {error}") from error
    finished.to(_DTYPES[section.save_precision]).save_pretrained(draft)
    training.assembled.processor.save_pretrained(draft)
    facts = Facts(
        command=command,
        connector=model.config.connector,
        vision=model.config.vision_config.model_type,
        text=model.config.text_config.model_type,
        parameters=outcome.frozen + sum(outcome.trained.values()),
        groups=[(group.name, group.size, group.learning_rate) for group in training.groups],
        rows=outcome.rows,
        bad=outcome.bad_rows,
        steps=outcome.steps,
        epochs=outcome.epochs,
        loss=outcome.loss,
        seconds=outcome.seconds,
        device=f"{model.device.type} x {training.trainer.args.world_size}",
    )
    (draft / "README.md").write_text(card(section, facts), encoding="utf-8")
    for file in draft.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes files that only their owner may read
    shutil.rmtree(out / _MODEL, ignore_errors=True)
    draft.rename(out / _MODEL)
