"""The closed-set detector: a small RT-DETRv2 that finds the scene world's categories, trained from nothing.

Matching one query to each object is a poor teacher of a new backbone: few predictions learn from an object, and which
ones do changes at every step. So the heads that choose the queries, which see every cell of the feature grid, learn
from several cells of each object (`one_to_many`); their best cells are good boxes within minutes, and the decoder,
which starts from them, learns one-to-one matching from its first step on.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn

from demo.metrics.boxes import Found, Truth, mean_average_precision, precision_recall
from demo.shapes import CATEGORIES
from demo.train import augment
from demo.train.assignment import Targets, losses, one_to_many, one_to_one
from demo.train.base import Recipe, RecipeSection
from demo.train.half import save_half
from demo.train.pool import ScenePool

SIDE = 160
STRIDES = (8, 16, 32)
MOST_HIDDEN = 0.75
"""An object of which more is hidden is ignored, in training and in evaluation."""
LEAST_SIDE = 6 / SIDE
"""An object whose visible box is narrower or lower is ignored; 6 px of the model's input."""
LEAST_SHARE = 0.35
"""Where less of a box is in a window of augmentation, the object is ignored."""
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""RT-DETR's image processor scales pixels to 0..1 and does not normalise them."""


class DetectorSection(RecipeSection):
    """Closed-set detector."""

    width: int = Field(96, ge=16, multiple_of=16, description="channels of the encoder and the decoder")
    queries: int = Field(30, ge=1, description="boxes that the decoder refines")
    least_window: float = Field(0.65, gt=0, le=1, description="smallest side of augmentation's windows")


class Detector(Recipe[DetectorSection]):
    """RT-DETRv2 with a ResNet of basic layers."""

    name = "detector"
    section = DetectorSection
    about = (
        "A small RT-DETRv2 (transformers `RTDetrV2ForObjectDetection`) that finds the scene world's categories: a"
        f" picture squashed to {SIDE} x {SIDE} px goes in, boxes with labels and scores come out, without NMS."
    )
    library = "transformers"
    task = "object-detection"

    def build(self) -> nn.Module:
        from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

        width, stages = self.config.width, [32, 64, 128, 192]
        # "basic" layers need hidden_sizes[0] to be embedding_size.
        backbone = RTDetrResNetConfig(
            embedding_size=stages[0],
            hidden_sizes=stages,
            depths=[1, 2, 2, 1],
            layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )
        model = RTDetrV2ForObjectDetection(
            RTDetrV2Config(
                backbone_config=backbone,
                freeze_backbone_batch_norms=False,
                encoder_in_channels=stages[1:],
                encoder_hidden_dim=width,
                encoder_ffn_dim=2 * width,
                encoder_attention_heads=4,
                hidden_expansion=0.5,
                feat_strides=list(STRIDES),
                d_model=width,
                decoder_in_channels=[width] * 3,
                decoder_ffn_dim=2 * width,
                decoder_attention_heads=4,
                decoder_layers=2,
                num_queries=self.config.queries,
                num_denoising=0,
                id2label=dict(enumerate(CATEGORIES)),
                label2id={label: i for i, label in enumerate(CATEGORIES)},
            )
        )
        _start(model)
        return model.to(memory_format=torch.channels_last).train()

    def loss(
        self, model: nn.Module, pool: ScenePool, rows: np.ndarray, rng: np.random.Generator, progress: float
    ) -> tuple[torch.Tensor, dict[str, float]]:
        device = next(model.parameters()).device
        windows = augment.windows(rng, len(rows), self.config.least_window)
        images = augment.spoil(augment.cut(pool.images[rows], windows, SIDE, rng), rng, share=0.25)
        pixels = augment.light(images, rng, *PLAIN).to(device, memory_format=torch.channels_last)
        targets = _targets(pool, rows, windows, device)
        out = model.model(pixels)
        with torch.autocast(device.type, enabled=False):
            parts: dict[str, torch.Tensor] = {}
            logits, boxes = out.enc_outputs_class.float(), out.enc_outputs_coord_logits.float().sigmoid()
            with torch.no_grad():
                assigned = one_to_many(logits, boxes, _cells(device), targets)
            parts["grid_class"], parts["grid_box"] = losses(logits, boxes, targets, assigned)
            for layer in range(out.intermediate_logits.shape[1]):
                logits = out.intermediate_logits[:, layer].float()
                boxes = out.intermediate_reference_points[:, layer].float()
                with torch.no_grad():
                    assigned = one_to_one(logits, boxes, targets)
                parts[f"class{layer}"], parts[f"box{layer}"] = losses(logits, boxes, targets, assigned)
            total = torch.stack(list(parts.values())).sum()
        return total, {name: float(part.detach()) for name, part in parts.items()}

    def evaluate(self, model: nn.Module, pool: ScenePool) -> dict[str, float]:
        found = detect(model, pool)
        truth = [_truth(pool, row) for row in range(len(pool))]
        precision = mean_average_precision(found, truth)
        right, recalled = precision_recall(found, truth)
        return {
            "map50": precision.mean,
            "map75": mean_average_precision(found, truth, iou=0.75).mean,
            "worst_class": min(precision.classes.values()),
            "precision": right,
            "recall": recalled,
        }

    def save(self, model: nn.Module, folder: Path) -> None:
        from transformers import RTDetrImageProcessor

        save_half(model, folder)
        RTDetrImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def detect(model: nn.Module, pool: ScenePool, batch: int = 50) -> list[Found]:
    """What the stock forward pass and post-processing find in each scene, as fractions of the picture."""
    from transformers import RTDetrImageProcessor

    device = next(model.parameters()).device
    processor = RTDetrImageProcessor()
    found = []
    for first in range(0, len(pool), batch):
        images = np.asarray(pool.images[first : first + batch])
        whole = np.broadcast_to(augment.WHOLE, (len(images), 4))
        out = model(augment.plain(augment.cut(images, whole, SIDE), *PLAIN).to(device))
        sizes = [(1, 1)] * len(images)
        found += [
            Found(*(one[key].float().cpu().numpy() for key in ("boxes", "labels", "scores")))
            for one in processor.post_process_object_detection(out, threshold=0.0, target_sizes=sizes)
        ]
    return found


def _start(model: Any) -> None:
    """First weights to learn from; the library's are those of a model that is about to be loaded.

    It draws the scales of batch norms outside the backbone and all linear layers with a deviation of 0.01, through
    which next to nothing passes.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    ends = [model.model.enc_bbox_head.layers[-1], *(head.layers[-1] for head in model.bbox_embed)]
    kept = {id(module) for name, module in model.named_modules() if name.endswith(("sampling_offsets", "_weights"))}
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module) not in kept:
            nn.init.xavier_uniform_(module.weight)
    for end in ends:
        nn.init.zeros_(end.weight)
    for scores in (model.model.enc_score_head, *model.class_embed):
        nn.init.normal_(scores.weight, std=0.01)
        nn.init.constant_(scores.bias, -4.6)  # a score of 0.01


def _cells(device: torch.device) -> torch.Tensor:
    """Centres x, y of the cells of all levels, in the order of the encoder's heads: float32 (cells, 2)."""
    levels = []
    for stride in STRIDES:
        middles = (torch.arange(SIDE // stride, device=device) + 0.5) * stride / SIDE
        y, x = torch.meshgrid(middles, middles, indexing="ij")
        levels.append(torch.stack([x, y], dim=-1).flatten(0, 1))
    return torch.cat(levels)


def _targets(pool: ScenePool, rows: np.ndarray, windows: np.ndarray, device: torch.device) -> Targets:
    """What is to be found in each window."""
    most = max(1, *(len(pool.truths[row].objects) for row in rows))
    boxes, labels = np.full((len(rows), most, 4), 0.5, np.float32), np.zeros((len(rows), most), np.int64)
    present, ignored = np.zeros((2, len(rows), most), bool)
    for i, (row, window) in enumerate(zip(rows, windows, strict=True)):
        truth = _truth(pool, row)
        inside, shares = augment.cut_boxes(truth.boxes, window)
        n = len(inside)
        sides = inside[:, 2:] - inside[:, :2]
        boxes[i, :n] = np.concatenate([(inside[:, :2] + inside[:, 2:]) / 2, sides], axis=1)
        labels[i, :n] = truth.labels
        unclear = truth.ignored | (shares < LEAST_SHARE) | (sides.min(axis=1) < LEAST_SIDE)
        seen = sides.min(axis=1) > 0
        ignored[i, :n], present[i, :n] = unclear & seen, ~unclear & seen
    return Targets(*(torch.from_numpy(values).to(device) for values in (boxes, labels, present, ignored)))


def _truth(pool: ScenePool, row: int) -> Truth:
    """The objects of a scene, those that cannot be asked for ignored."""
    objects, boxes = pool.truths[row].objects, pool.boxes(row)
    hidden = np.array([o.occlusion > MOST_HIDDEN for o in objects], bool)
    small = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=1) < LEAST_SIDE
    return Truth(boxes, np.array([CATEGORIES.index(o.category) for o in objects], int), hidden | small)
