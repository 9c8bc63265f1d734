"""Figures of what the experts see."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.world.shots import Shot
from demo.backgrounds import SETTINGS
from demo.metrics import florence
from demo.metrics.boxes import box_truth, found_boxes, mean_average_precision, mean_boxes, precision_recall
from demo.metrics.depth import depth_figures
from demo.metrics.signs import error_rate, exact, lines_on, sign_text
from demo.metrics.tags import best_fixed_tags, tag_figures
from demo.shapes import CATEGORIES
from demo.signs import CONDITIONS
from demo.split import HELD_OUT
from demo.truth import SceneTruth
from experts.depth import unpacked
from experts.florence import FlorenceSection

Priors = Sequence[dict[str, Any]]


def true_tags(truth: SceneTruth) -> set[str]:
    """The categories that are there, and the setting."""
    return {item.category for item in truth.objects} | {truth.setting}


def tags_figures(shots: Sequence[Shot], priors: Priors) -> dict[str, float]:
    """Micro-F1 against categories and setting, of each alone too, and of the best fixed set of tags."""
    true = [true_tags(shot.truth) for shot in shots]
    given = [{tag["tag"] for tag in prior["tags"]} for prior in priors]
    whole = tag_figures(given, true)
    fixed = best_fixed_tags(true)
    figures = {
        "tags.f1": whole.f1,
        "tags.precision": whole.precision,
        "tags.recall": whole.recall,
        "tags.fixed.f1": tag_figures([fixed] * len(true), true).f1,
    }
    for name, others in (("categories", set(SETTINGS)), ("settings", set(CATEGORIES))):
        one = tag_figures([tags - others for tags in given], [tags - others for tags in true])
        figures[f"tags.{name}.f1"] = one.f1
    return figures


def closed_set_figures(shots: Sequence[Shot], priors: Priors, unfiltered: Priors) -> dict[str, float]:
    """Average precision at IoU 0.5 of the boxes that the stage gives, and of all that the model finds."""
    truth = [box_truth(shot.truth) for shot in shots]
    found = [found_boxes(prior["boxes"]) for prior in priors]
    kept = mean_average_precision(found, truth)
    precision, recall = precision_recall(found, truth, threshold=0.0)
    return {
        "closed_set.map50": kept.mean,
        "closed_set.unfiltered.map50": mean_average_precision(
            [found_boxes(p["boxes"]) for p in unfiltered], truth
        ).mean,
        "closed_set.precision": precision,
        "closed_set.recall": recall,
        "boxes.mean.map50": mean_average_precision([mean_boxes(truth)] * len(truth), truth).mean,
    } | {f"closed_set.ap50.{label}": value for label, value in kept.classes.items()}


def open_set_figures(shots: Sequence[Shot], priors: Priors, unfiltered: Priors, named: Priors) -> dict[str, float]:
    """The same with the image's tags as classes, without the held-out category, which has figures of its own.

    Args:
        priors: of the stage as configured.
        unfiltered: with the tags, at any score.
        named: at any score, with the names of all categories as every picture's tags.
    """
    truth = [box_truth(shot.truth) for shot in shots]
    found = [found_boxes(prior["boxes"]) for prior in priors]
    kept = mean_average_precision(found, truth).classes
    precision, recall = precision_recall(found, truth, threshold=0.0)
    figures = {"open_set.map50": _trained(kept), "open_set.precision": precision, "open_set.recall": recall}
    for name, other in (("unfiltered", unfiltered), ("all_names", named)):
        classes = mean_average_precision([found_boxes(prior["boxes"]) for prior in other], truth).classes
        figures[f"open_set.{name}.map50"] = _trained(classes)
        if HELD_OUT in classes:
            figures[f"open_set.{name}.held_out.ap50"] = classes[HELD_OUT]
    if HELD_OUT in kept:
        figures["open_set.held_out.ap50"] = kept[HELD_OUT]
    return figures | {f"open_set.ap50.{label}": value for label, value in kept.items()}


def _trained(classes: dict[int | str, float]) -> float:
    return float(np.mean([value for label, value in classes.items() if label != HELD_OUT]))


def depth_maps(priors: Priors, side: int) -> np.ndarray:
    """Predicted disparities (n, side, side), float32, each squashed to a square."""
    maps = [Image.fromarray(unpacked(prior)).resize((side, side), Image.Resampling.BOX) for prior in priors]
    return np.stack([np.asarray(one) for one in maps])


def depth_stage_figures(shots: Sequence[Shot], priors: Priors, mean: np.ndarray) -> dict[str, float]:
    """What demo.metrics.depth says of the stage's maps, and of the mean map (GRID, GRID) in their place."""
    true = np.stack([shot.disparity for shot in shots])
    owners = np.stack([shot.owners for shot in shots])
    distances = [[item.distance for item in shot.truth.objects] for shot in shots]
    one = depth_figures(depth_maps(priors, len(mean)), true, owners, distances, mean)
    base = depth_figures(np.broadcast_to(mean, true.shape), true, owners, distances, mean)
    return {
        "depth.residual_correlation": one.residual_correlation,
        "depth.correlation": one.correlation,
        "depth.pair_order": one.pair_order,
        "depth.pairs": float(one.pairs),
        "depth.mean_map.residual_correlation": base.residual_correlation,
        "depth.mean_map.correlation": base.correlation,
        "depth.mean_map.pair_order": base.pair_order,
    }


def florence_figures(shots: Sequence[Shot], priors: Priors, section: FlorenceSection) -> dict[str, float]:
    """What demo.metrics.florence says of what the stage is asked for, and of answers that do not look."""
    truths = [shot.truth for shot in shots]
    figures: dict[str, dict[str, float]] = {"florence": {}, "florence.fixed": {}}
    if section.caption != "none":
        figures["florence"] |= florence.caption_figures([prior["caption"] for prior in priors], truths)
        figures["florence.fixed"] |= florence.fixed_caption_figures(truths)
    if section.regions:
        figures["florence"] |= florence.region_figures([prior["regions"] for prior in priors], truths)
        figures["florence.fixed"] |= florence.fixed_region_figures(truths)
    return {f"{who}.{name}": value for who, one in figures.items() for name, value in one.items()}


def signs_figures(shots: Sequence[Shot], priors: Priors) -> dict[str, float]:
    """Signs read to the letter, and character error rates, by condition; lines read where no sign is, per picture."""
    read: dict[str, list[tuple[str, str]]] = {condition: [] for condition in CONDITIONS}
    stray = 0
    for shot, prior in zip(shots, priors, strict=True):
        signs = [item for item in shot.truth.objects if item.text is not None]
        stray += len(prior["lines"]) - len({i for sign in signs for i in lines_on(prior["lines"], sign, shot.truth)})
        for sign in signs:
            read[str(sign.condition)].append((sign_text(prior["lines"], sign, shot.truth), str(sign.text)))
    figures = {"signs.stray": stray / len(shots)}
    for condition, pairs in read.items():
        if pairs:
            figures[f"signs.{condition}"] = float(np.mean([exact(*pair) for pair in pairs]))
            figures[f"signs.{condition}.error_rate"] = float(np.mean([error_rate(*pair) for pair in pairs]))
        figures[f"signs.{condition}.count"] = float(len(pairs))
    clean = [true for _, true in read["clean"]]
    if clean:
        figures["signs.common"] = max(map(clean.count, clean)) / len(clean)
    return figures
