"""The tagger: a small convolutional timm classifier that says which objects a scene holds and where it is.

While it trains, a second head says what is in each cell of its last feature map. That head is told where objects are,
which makes a small network learn several times faster than tags of whole pictures do; it is not saved.
"""

import copy
from pathlib import Path
from typing import ClassVar

import numpy as np
import timm
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from demo.backgrounds import SETTINGS
from demo.metrics.tags import tag_figures
from demo.shapes import CATEGORIES
from demo.train import augment
from demo.train.base import Recipe, RecipeSection
from demo.train.pool import ScenePool

SIZE = 160
LABELS: tuple[str, ...] = (*CATEGORIES, *SETTINGS)
THRESHOLD = 0.5
"""A tag holds where its probability is at least this."""
MEAN = STD = (0.5, 0.5, 0.5)
_PRESENT, _ABSENT = 0.5, 0.1
"""The shares of an object's box within a window from which it counts as there, and below which as not there."""
_FINE = 4
"""Cells of the map are described by this many samples a side."""
_SETTING = {name: number for number, name in enumerate(SETTINGS, len(CATEGORIES))}


class TaggerSection(RecipeSection):
    """The tagger."""

    channels: tuple[int, int, int, int] = Field((32, 64, 128, 256), description="of the four stages")
    layers: tuple[int, int, int, int] = Field((1, 1, 2, 1), description="blocks of the four stages")
    stem_width: int = Field(16, description="channels of the first of the stem's three convolutions")
    output_stride: int = Field(32, description="px of the picture to a cell of the last feature map: 16 or 32")
    global_pool: str = Field("avg", description="timm's: avg, max, avgmax or catavgmax")
    cells_weight: float = Field(1.0, ge=0, description="of the loss of the cells against that of the tags")


class WithCells(nn.Module):
    """A tagger and its second head, a score of every category and of none for each cell of the last feature map."""

    def __init__(self, tagger: nn.Module) -> None:
        super().__init__()
        self.tagger = tagger
        self.cells = nn.Conv2d(tagger.num_features, len(CATEGORIES) + 1, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, labels) and (batch, none and categories, rows, columns)."""
        features = self.tagger.forward_features(pixels)
        return self.tagger.forward_head(features), self.cells(features)


class Tagger(Recipe[TaggerSection]):
    name: ClassVar[str] = "tagger"
    section = TaggerSection
    about: ClassVar[str] = (
        f"A ResNet of timm's as a multi-label classifier of {len(LABELS)} labels. It sees a picture squashed to "
        f"{SIZE} x {SIZE} px and gives a logit for each label; a tag holds where its sigmoid is at least {THRESHOLD}."
    )
    library: ClassVar[str] = "timm"
    task: ClassVar[str] = "image-classification"

    def build(self) -> nn.Module:
        config = self.config
        tagger = timm.create_model(
            "resnet10t",
            num_classes=len(LABELS),
            channels=config.channels,
            layers=config.layers,
            stem_type="deep",
            stem_width=config.stem_width,
            avg_down=False,
            output_stride=config.output_stride,
            global_pool=config.global_pool,
        )
        return WithCells(tagger).to(memory_format=torch.channels_last)

    def loss(
        self, model: nn.Module, pool: ScenePool, rows: np.ndarray, rng: np.random.Generator, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        device = next(model.parameters()).device
        where = augment.windows(rng, len(rows))
        views = augment.spoil(augment.cut(pool.images[rows], where, SIZE, rng), rng)
        pixels = augment.light(views, rng, MEAN, STD).to(device, memory_format=torch.channels_last)
        logits, cells = model(pixels)
        wanted, known = (torch.from_numpy(a).to(device) for a in targets(pool, rows, where))
        of_tags = functional.binary_cross_entropy_with_logits(logits.float(), wanted, known, reduction="sum") / len(
            rows
        )
        shares = torch.from_numpy(cell_shares(pool, rows, where, cells.shape[-1])).to(device)
        of_cells = functional.cross_entropy(cells.float(), shares)
        return of_tags + self.config.cells_weight * of_cells, {
            "tags": float(of_tags.detach()),
            "cells": float(of_cells.detach()),
        }

    def evaluate(self, model: nn.Module, pool: ScenePool) -> dict[str, float]:
        device = next(model.parameters()).device
        rows = np.arange(len(pool))
        found = []
        for part in np.array_split(rows, -(-len(rows) // 64)):
            views = augment.cut(pool.images[part], np.tile(augment.WHOLE, (len(part), 1)), SIZE)
            pixels = augment.plain(views, MEAN, STD).to(device, memory_format=torch.channels_last)
            found.append(model.tagger(pixels).sigmoid().cpu().numpy() >= THRESHOLD)
        wanted, _ = targets(pool, rows, np.tile(augment.WHOLE, (len(rows), 1)))
        return figures(np.concatenate(found), wanted > 0)

    def save(self, model: nn.Module, folder: Path) -> None:
        timm.models.save_for_hf(
            copy.deepcopy(model.tagger).half().to(memory_format=torch.contiguous_format),
            str(folder),
            model_config={
                "label_names": list(LABELS),
                # In place of what timm knows of the weights of its own that have this architecture.
                "pretrained_cfg": {"tag": "scene_world", "license": "other", "origin_url": None},
            },
            data_config={
                "input_size": (3, SIZE, SIZE),
                "interpolation": "bicubic",
                "crop_pct": 1.0,
                "crop_mode": "squash",
                "mean": MEAN,
                "std": STD,
            },
            safe_serialization=True,
        )


def targets(pool: ScenePool, rows: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each window shows, and how far that can be said: two arrays float32 (batch, labels) of 0 and 1.

    An object of which a window shows a small part is not asked for.
    """
    wanted = np.zeros((len(rows), len(LABELS)), np.float32)
    known = np.ones_like(wanted)
    for i, (row, window) in enumerate(zip(rows, where, strict=True)):
        truth = pool.truths[row]
        wanted[i, _SETTING[truth.setting]] = 1
        if not truth.objects:
            continue
        labels = np.array([CATEGORIES.index(o.category) for o in truth.objects])
        _, shares = augment.cut_boxes(pool.boxes(row), window)
        known[i, labels[(shares > _ABSENT) & (shares < _PRESENT)]] = 0
        present = labels[shares >= _PRESENT]
        wanted[i, present], known[i, present] = 1, 1
    return wanted, known


def cell_shares(pool: ScenePool, rows: np.ndarray, where: np.ndarray, grid: int) -> np.ndarray:
    """The shares of each cell that show nothing, and each category: float32 (batch, 1 + categories, grid, grid)."""
    count = 1 + len(CATEGORIES)
    numbers = np.zeros((len(rows), 256), np.int64)
    for i, row in enumerate(rows):
        objects = pool.truths[row].objects
        numbers[i, 1 : len(objects) + 1] = [1 + CATEGORIES.index(o.category) for o in objects]
    owners = augment.cut_cells(pool.owners[rows], where, grid * _FINE)
    seen = numbers[np.arange(len(rows))[:, None, None], owners]
    samples = np.eye(count, dtype=np.float32)[seen].reshape(len(rows), grid, _FINE, grid, _FINE, count)
    return samples.mean(axis=(2, 4)).transpose(0, 3, 1, 2).copy()


def figures(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Of boolean arrays (scenes, labels): F1, precision and recall of all tags together, and the worst label's F1."""
    together = tag_figures(_named(found), _named(wanted))
    hits, both = (found & wanted).sum(axis=0), found.sum(axis=0) + wanted.sum(axis=0)
    least = (2 * hits / np.maximum(both, 1))[wanted.any(axis=0)].min()
    return {
        "micro_f1": together.f1,
        "precision": together.precision,
        "recall": together.recall,
        "least_f1": float(least),
    }


def _named(tags: np.ndarray) -> list[list[str]]:
    return [[LABELS[i] for i in np.flatnonzero(row)] for row in tags]
