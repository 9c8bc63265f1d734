"""Training: the same batches after a stop as without one, a curve, at the end the averaged weights and their card."""

import copy
import functools
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from demo.train.base import Recipe
from demo.train.card import Facts, card
from demo.train.pool import CACHE, ScenePool, open_pool

_BETAS = (0.9, 0.98)
"""AdamW's; the second is lower than its default because runs are short."""
_CHECKPOINT, _CURVE, _WEIGHTS = "checkpoint.pt", "curve.jsonl", "weights"


class MismatchError(Exception):
    """A checkpoint belongs to another run than the one that was asked for."""


@dataclass
class Progress:
    """What is known of a run beside its tensors; it is in the checkpoint.

    Attributes:
        step: steps done.
        cpu_seconds: processor time of the training process, all resumes together, evaluations included.
        wall_seconds: the time that passed meanwhile.
        logged: the last step with a line in the curve.
        sums: of the parts of the losses since then.
        figures: of the last evaluation.
    """

    step: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    logged: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def train(
    recipe: Recipe[Any],
    out: Path,
    *,
    command: str,
    device: str = "auto",
    threads: int = 1,
    cache: Path = CACHE,
    render_workers: int = 1,
) -> dict[str, float]:
    """Train a recipe, from the last checkpoint in `out` where there is one; write OUT/curve.jsonl and OUT/weights/.

    Args:
        command: what was typed, for the card.
        device: auto, cpu or cuda.
        threads: of torch, on the CPU.
        cache: where rendered scenes are kept.

    Returns:
        The figures on the validation scenes.

    Raises:
        MismatchError: `out` holds a checkpoint of another recipe, configuration or version of the scenes.
    """
    torch.set_num_threads(threads)
    place = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    config = recipe.config
    pool = open_pool("train", config.scenes, cache, render_workers)
    validation = open_pool("validation", config.validation_scenes, cache, render_workers)
    run = _Run(recipe, pool, validation, out, place)
    run.resume()
    while run.progress.step < config.steps:
        run.step()
        done = run.progress.step
        last = done == config.steps
        figures = run.evaluate() if done % config.evaluate_every == 0 or last else {}
        if done % config.log_every == 0 or figures:
            run.log(figures)
        if done % config.checkpoint_every == 0 or last:
            run.save_checkpoint()
    run.save_weights(command)
    return run.progress.figures


def rate_factor(step: int, warmup: int, steps: int) -> float:
    """The share of the peak learning rate at a step: linear warm-up, then a cosine that would reach 0 at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))


def batch_rows(seed: int, step: int, size: int, count: int) -> np.ndarray:
    """The rows of a step's batch, int64 (size,): passes over all `count` rows, each in an order of its own."""
    places = np.arange(step * size, (step + 1) * size)
    return np.array([_order(seed, int(place) // count, count)[place % count] for place in places])


@functools.lru_cache(2)
def _order(seed: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, turn, count]).permutation(count)


class _Run:
    """One model on its way: its tensors, its progress, and what is written about it."""

    def __init__(
        self, recipe: Recipe[Any], pool: ScenePool, validation: ScenePool, out: Path, device: torch.device
    ) -> None:
        self.recipe, self.config, self.pool, self.validation = recipe, recipe.config, pool, validation
        self.out, self.device = out, device
        torch.manual_seed(self.config.seed)
        self.model = recipe.build().to(device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.tensors = [*self.model.parameters(), *self.model.buffers()]
        self.averages = [*self.average.parameters(), *self.average.buffers()]
        groups = recipe.groups(self.model)
        self.factors = [group["lr"] for group in groups]
        self.trained = [parameter for group in groups for parameter in group["params"]]
        self.optimizer = torch.optim.AdamW(groups, betas=_BETAS, fused=True)
        self.progress = Progress()
        self.identity = {"recipe": recipe.name, "scenes": pool.version, "config": self.config.decides()}
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        self._paced, self._paced_at = 0, self._wall

    def step(self) -> None:
        step, config = self.progress.step, self.config
        rng = np.random.default_rng([config.seed, step])
        torch.manual_seed(int(rng.integers(2**63)))
        rate = config.learning_rate * rate_factor(step, config.warmup_steps, config.steps)
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = rate * factor
        rows = batch_rows(config.seed, step, config.batch_size, len(self.pool))
        with torch.autocast(self.device.type, torch.bfloat16):
            loss, parts = self.recipe.loss(self.model, self.pool, rows, rng, step / config.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, config.clip_norm, error_if_nonfinite=True)
        self.optimizer.step()
        self._follow(min(config.ema, (1 + step) / (10 + step)))
        sums = self.progress.sums
        for name, value in {"loss": float(loss.detach()), **parts, "gradient_norm": float(norm)}.items():
            sums[name] = sums.get(name, 0.0) + value
        self.progress.step += 1

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Move the average towards the weights; the norms' running statistics too, so that they fit one another."""
        smooth = [i for i, tensor in enumerate(self.tensors) if tensor.is_floating_point()]
        torch._foreach_lerp_([self.averages[i] for i in smooth], [self.tensors[i] for i in smooth], 1 - decay)
        for average, tensor in zip(self.averages, self.tensors, strict=True):
            if not tensor.is_floating_point():
                average.copy_(tensor)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        # As Python's own numbers: a checkpoint is read with weights_only, which knows no others.
        figures = self.recipe.evaluate(self.average, self.validation)
        self.progress.figures = {name: float(value) for name, value in figures.items()}
        return self.progress.figures

    def log(self, figures: dict[str, float]) -> None:
        """One line of the curve: the means of the losses since the line before, the pace since then or a resume."""
        self._clock()
        progress = self.progress
        now, steps = time.perf_counter(), progress.step - progress.logged
        line = {
            "step": progress.step,
            **{name: round(total / steps, 5) for name, total in progress.sums.items()},
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": round(
                self.config.batch_size * (progress.step - self._paced) / (now - self._paced_at), 1
            ),
            "cpu_seconds": round(progress.cpu_seconds, 1),
            **{name: round(value, 5) for name, value in figures.items()},
        }
        with (self.out / _CURVE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        progress.sums, progress.logged = {}, progress.step
        self._paced, self._paced_at = progress.step, time.perf_counter()

    def save_checkpoint(self) -> None:
        self._clock()
        content = {
            "identity": self.identity,
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        draft = self.out / f"{_CHECKPOINT}.draft"
        torch.save(content, draft)
        draft.replace(self.out / _CHECKPOINT)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one; lines of the curve that are later than it are dropped.

        Raises:
            MismatchError: the checkpoint is of another recipe, configuration or version of the scenes.
        """
        curve, path = self.out / _CURVE, self.out / _CHECKPOINT
        if path.is_file():
            content = torch.load(path, map_location=self.device, weights_only=True)
            self._refuse_other(content["identity"], path)
            self.progress = Progress(**content["progress"])
            self.model.load_state_dict(content["model"])
            self.average.load_state_dict(content["average"])
            self.optimizer.load_state_dict(content["optimizer"])
            self._paced = self.progress.step
        lines = curve.read_text(encoding="utf-8").splitlines(keepends=True) if curve.is_file() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.progress.step]
        curve.write_text("".join(kept), encoding="utf-8")

    def _refuse_other(self, found: dict[str, Any], path: Path) -> None:
        def flat(identity: dict[str, Any]) -> dict[str, Any]:
            return {"recipe": identity["recipe"], "scenes' version": identity["scenes"], **identity["config"]}

        before, now = flat(found), flat(self.identity)
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if names:
            changes = ", ".join(f"{name} was {before.get(name)!r} and is now {now.get(name)!r}" for name in names)
            raise MismatchError(
                f"{path} is of another run: {changes}. Give the same settings again to go on with it, "
                "or another --out to start anew."
            )

    def save_weights(self, command: str) -> None:
        """The averaged weights as the production loader takes them, with their card; whole or not at all."""
        facts = Facts(
            command=command,
            scenes_version=self.pool.version,
            config=self.config,
            parameters=sum(p.numel() for p in self.average.parameters()),
            device=self.device.type,
            minutes=(self.progress.cpu_seconds if self.device.type == "cpu" else self.progress.wall_seconds) / 60,
            figures=self.progress.figures,
        )
        draft = self.out / f"{_WEIGHTS}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        self.recipe.save(self.average.cpu(), draft)
        (draft / "README.md").write_text(card(self.recipe, facts), encoding="utf-8")
        for file in draft.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors makes files that only their owner may read
        shutil.rmtree(self.out / _WEIGHTS, ignore_errors=True)
        draft.rename(self.out / _WEIGHTS)

    def _clock(self) -> None:
        """Add the time since the last call to the progress."""
        cpu, wall = time.process_time(), time.perf_counter()
        self.progress.cpu_seconds += cpu - self._cpu
        self.progress.wall_seconds += wall - self._wall
        self._cpu, self._wall = cpu, wall
