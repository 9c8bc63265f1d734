"""Which predicted box answers for which true one, and the losses that follow, for detectors of the DETR family.

Boxes are (..., 4) tensors of centre x, centre y, width, height as fractions of the picture, in float32.
"""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Targets:
    """The true objects of a batch, padded to the same number.

    Attributes:
        boxes: float32 (batch, objects, 4).
        labels: int64 (batch, objects).
        present: bool (batch, objects), False for padding and for what is ignored.
        ignored: bool (batch, objects): not to be found, and what is found within its box is not wrong.
    """

    boxes: Tensor
    labels: Tensor
    present: Tensor
    ignored: Tensor


@dataclass(frozen=True)
class Assigned:
    """What each prediction should say.

    Attributes:
        objects: int64 (batch, predictions), the object that each answers for; any where `weights` is 0.
        scores: float32 (batch, predictions), the score 0..1 to have for that object's label; 0 for background.
        weights: float32 (batch, predictions), how much its box matters; 0 for background.
    """

    objects: Tensor
    scores: Tensor
    weights: Tensor


def corners(boxes: Tensor) -> Tensor:
    """x1, y1, x2, y2 of boxes."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of boxes whose leading dimensions broadcast."""
    a, b = corners(a), corners(b)
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    iou = shared / union.clamp(min=1e-9)
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)


def one_to_many(logits: Tensor, boxes: Tensor, cells: Tensor, targets: Targets, most: int = 6) -> Assigned:
    """Task-aligned assignment (Feng et al., TOOD, 2021) of grid cells to objects.

    The `most` cells whose centre is in an object's box and whose score and box fit it best answer for it. Their
    scores shall be the alignment, scaled so that the best one's is the object's best IoU.

    Args:
        logits: float32 (batch, cells, labels).
        boxes: float32 (batch, cells, 4).
        cells: float32 (cells, 2), their centres.
    """
    iou, _ = overlaps(boxes[:, :, None], targets.boxes[:, None])
    labels = targets.labels[:, None].expand(-1, logits.shape[1], -1)
    metric = logits.sigmoid().gather(2, labels).sqrt() * iou**4
    metric = metric.clamp(min=1e-9) * (_inside(cells[None], targets.boxes) & targets.present[:, None])
    best = metric.topk(most, dim=1)
    kept = torch.zeros_like(metric).scatter_(1, best.indices, 1.0) * (metric > 0)
    objects = (kept * (iou + 1e-9)).argmax(2)
    kept = kept * functional.one_hot(objects, kept.shape[2])
    metric, iou = metric * kept, iou * kept
    scores = (metric / metric.amax(1, keepdim=True).clamp(min=1e-9) * iou.amax(1, keepdim=True)).amax(2)
    return Assigned(objects, scores, scores)


def one_to_one(logits: Tensor, boxes: Tensor, targets: Targets) -> Assigned:
    """DETR's bipartite matching with the costs of Deformable DETR (focal class 2, L1 5, generalised IoU 2)."""
    iou, giou = overlaps(boxes[:, :, None], targets.boxes[:, None])
    labels = targets.labels[:, None].expand(-1, logits.shape[1], -1)
    scores = logits.sigmoid().gather(2, labels)
    focal = 0.25 * (1 - scores) ** 2 * -(scores + 1e-8).log() - 0.75 * scores**2 * -(1 - scores + 1e-8).log()
    apart = (boxes[:, :, None] - targets.boxes[:, None]).abs().sum(-1)
    costs = (2 * focal + 5 * apart - 2 * giou).cpu().numpy()
    present = targets.present.cpu().numpy()
    chosen = torch.zeros(logits.shape[:2], dtype=torch.bool)
    objects = torch.zeros(logits.shape[:2], dtype=torch.int64)
    for i, here in enumerate(present):
        columns = here.nonzero()[0]
        rows, matched = linear_sum_assignment(costs[i][:, columns])
        chosen[i, rows] = True
        objects[i, rows] = torch.from_numpy(columns[matched])
    chosen, objects = chosen.to(logits.device), objects.to(logits.device)
    return Assigned(objects, iou.gather(2, objects[..., None])[..., 0] * chosen, chosen.float())


def losses(logits: Tensor, boxes: Tensor, targets: Targets, assigned: Assigned) -> tuple[Tensor, Tensor]:
    """The class loss, and the box loss of predictions that answer for an object, by their weights.

    The class loss is a binary cross-entropy in which background counts by its squared score (varifocal loss, Zhang et
    al. 2021), the box loss 5 times L1 and 2 times 1 - generalised IoU as in DETR; both are per object.
    """
    objects, weights = assigned.objects, assigned.weights
    labels = targets.labels.gather(1, objects)
    wanted = torch.zeros_like(logits).scatter_(2, labels[..., None], assigned.scores[..., None])
    background = 0.75 * logits.detach().sigmoid() ** 2 * ~(_ignored(boxes, targets) & (weights == 0))[..., None]
    total = weights.sum().clamp(min=1)
    classes = functional.binary_cross_entropy_with_logits(
        logits, wanted, torch.where(wanted > 0, wanted, background), reduction="sum"
    )
    right = targets.boxes.gather(1, objects[..., None].expand_as(boxes))
    apart = 5 * (boxes - right).abs().sum(-1) + 2 * (1 - overlaps(boxes, right)[1])
    return classes / total, (apart * weights).sum() / total


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points (batch, n, 2) lie in boxes (batch, m, 4): bool (batch, n, m)."""
    apart = (points[:, :, None] - boxes[:, None, :, :2]).abs()
    return (apart < boxes[:, None, :, 2:] / 2).all(-1)


def _ignored(boxes: Tensor, targets: Targets) -> Tensor:
    """Whether the centre of a predicted box lies in an ignored object's: bool (batch, predictions)."""
    return (_inside(boxes[..., :2], targets.boxes) & targets.ignored[:, None]).any(2)
