"""What a model's recipe says; the loop does the rest."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import Field

from demo.train.pool import ScenePool
from schemas.section import Section, runtime

if TYPE_CHECKING:
    from torch import Tensor, nn


class RecipeSection(Section):
    """What every recipe's configuration holds; a recipe adds its own fields.

    Fields marked `runtime` may differ when a run is resumed.
    """

    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(64, ge=1, description="scenes a step")
    learning_rate: float = Field(1e-3, gt=0, description="at its peak; linear warm-up, then a cosine down to 0")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's, for matrices and kernels only")
    warmup_steps: int = Field(100, ge=0, description="steps until the learning rate's peak")
    ema: float = Field(
        0.999, ge=0, lt=1, description="decay of the moving average of the weights, which is what is saved"
    )
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    seed: int = Field(0, ge=0, description="of the first weights, the batches and their augmentation")
    scenes: int = Field(20_000, ge=1, description="training scenes in the pool")
    validation_scenes: int = Field(1_000, ge=1, description="validation scenes in the pool")
    evaluate_every: int = runtime(500, ge=1, description="steps between evaluations")
    checkpoint_every: int = runtime(100, ge=1, description="steps between checkpoints")
    log_every: int = runtime(20, ge=1, description="steps whose losses are averaged into one line of the curve")


Config = TypeVar("Config", bound=RecipeSection)


class Recipe(ABC, Generic[Config]):
    """How one model is built, what it learns from, how it is judged and how it is saved.

    A subclass states:
        name: of its module, its command and its configuration file.
        section: the type of its configuration.
        about: for the model card: one paragraph, which class it is, what goes in and what comes out.
        library: the card's `library_name` (timm, open_clip, transformers).
        task: the card's `pipeline_tag`.
    """

    name: ClassVar[str]
    section: type[Config]
    about: ClassVar[str]
    library: ClassVar[str]
    task: ClassVar[str]

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def build(self) -> "nn.Module":
        """The model with its first weights, in training mode, on the CPU; torch is seeded before."""

    @abstractmethod
    def loss(
        self, model: "nn.Module", pool: ScenePool, rows: np.ndarray, rng: np.random.Generator, progress: float
    ) -> tuple["Tensor", dict[str, float]]:
        """The loss of one step, under bf16 autocast, and its parts for the curve.

        Parts are best given as `float(x.detach())` of few tensors: on a GPU each one waits for it.

        Args:
            model: on the device it trains on; `next(model.parameters()).device` says which.
            pool: the training scenes.
            rows: int64 (batch,) row numbers in the pool.
            rng: the only source of chance besides torch's own generator, which is seeded alike; both depend on the
                seed and the step alone.
            progress: share 0..1 of the steps that are done.
        """

    @abstractmethod
    def evaluate(self, model: "nn.Module", pool: ScenePool) -> dict[str, float]:
        """Figures on the validation scenes; the averaged weights, in evaluation mode, without gradients, fp32."""

    @abstractmethod
    def save(self, model: "nn.Module", folder: Path) -> None:
        """Write into an empty folder what the production loader reads; weights are fp16 safetensors."""

    def groups(self, model: "nn.Module") -> list[dict[str, Any]]:
        """AdamW's parameter groups; `lr` in a group is a factor of the configuration's learning rate.

        By default matrices and kernels decay; biases, norms and scales do not.
        """
        trained = [p for p in model.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.config.weight_decay, "lr": 1.0},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0, "lr": 1.0},
        ]
