"""The figures that have a target or a baseline, over one or several sets of scenes."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One figure and what it is held against.

    Attributes:
        figure: its name among the figures.
        what: in words.
        target: None where it is only reported.
        at_most: whether the target is an upper bound.
        baseline: name of the baseline's figure; None where nothing trivial gives one.
        trivial: the baseline in words.
    """

    figure: str
    what: str
    target: float | None = None
    at_most: bool = False
    baseline: str | None = None
    trivial: str = ""


def _found(kind: str, words: str, target: float | None) -> Row:
    return Row(f"copies.{kind}.found", words, target, False, f"copies.{kind}.phash.found", "perceptual hash alone")


def _told(name: str, words: str, trivial: str) -> Row:
    return Row(f"florence.{name}", words, None, False, f"florence.fixed.{name}", trivial)


ROWS = (
    Row("purity", "k-means purity by setting", 0.98, False, "purity.majority", "majority class"),
    _found("reencoded", "copies found: JPEG at quality 50", 0.98),
    _found("resized", "copies found: resized", 0.98),
    _found("watermarked", "copies found: watermarked", 0.98),
    _found("cropped", "copies found: cropped by 5 %", 0.90),
    Row(
        "copies.hit",
        "distinct scenes hit meanwhile, worst of these four",
        0.01,
        True,
        "copies.phash.hit",
        "perceptual hash alone",
    ),
    _found("reencoded_hard", "copies found: JPEG at quality 20", None),
    _found("cropped_more", "copies found: cropped by 10 %", None),
    _found("brighter", "copies found: brighter by a fifth", None),
    _found("mirrored", "mirrored pictures taken for copies, which they are not", None),
    Row("tags.f1", "tags, micro-F1", 0.90, False, "tags.fixed.f1", "best fixed set of tags"),
    Row("closed_set.map50", "closed-set boxes, mAP50", 0.70, False, "boxes.mean.map50", "each class's mean box"),
    Row(
        "open_set.map50",
        "open-set boxes, the image's tags as classes, mAP50",
        0.60,
        False,
        "boxes.mean.map50",
        "each class's mean box",
    ),
    Row("open_set.held_out.ap50", "open-set boxes of a class never trained for detection, AP50"),
    Row(
        "depth.residual_correlation",
        "depth, correlation beyond the mean map",
        0.80,
        False,
        "depth.mean_map.residual_correlation",
        "mean map",
    ),
    Row("depth.pair_order", "depth, pairs of objects in order", 0.95, False, "depth.mean_map.pair_order", "mean map"),
    Row("signs.clean", "clean signs read to the letter", 0.98, False, "signs.common", "most frequent text"),
    *(
        Row(f"signs.{condition}", f"{condition} signs read to the letter", None, False, "signs.common", "the same")
        for condition in ("rotated", "blurred", "faint")
    ),
    _told("region_f1", "Florence-2's regions, F1 of classes at IoU 0.5", "each class's mean box"),
    _told("region_named_f1", "Florence-2's regions, F1 with colours", "each coloured class's mean box"),
    _told("caption_class_f1", "Florence-2's caption, F1 of classes", "best fixed caption"),
    _told("caption_named_f1", "Florence-2's caption, F1 with colours", "best fixed caption"),
    _told("caption_placed_f1", "Florence-2's caption, F1 with colours, side and depth", "best fixed caption"),
    _told("caption_setting", "Florence-2's caption, settings named", "majority class"),
)


def summarised(figures: Figures | Sequence[Figures]) -> dict[str, dict[str, float]]:
    """`mean`, `least` and `most` of every figure over the sets that have it."""
    sets = list(figures) if isinstance(figures, Sequence) else [figures]
    names = dict.fromkeys(name for one in sets for name in one)
    values = {name: [one[name] for one in sets if name in one] for name in names}
    return {name: {"mean": statistics.fmean(v), "least": min(v), "most": max(v)} for name, v in values.items()}


def table(figures: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """The rows whose figure was measured, from `summarised` figures, each with its target and baseline.

    `reached` goes by the mean, and is None without a target.
    """
    rows = []
    for row in ROWS:
        if row.figure not in figures:
            continue
        mean = figures[row.figure]["mean"]
        reached = None
        if row.target is not None:
            reached = mean <= row.target if row.at_most else mean >= row.target
        baseline = None
        if row.baseline in figures:
            baseline = {"what": row.trivial, "mean": figures[str(row.baseline)]["mean"]}
        rows.append(
            {"figure": row.figure, "what": row.what, **figures[row.figure]}
            | {"target": row.target, "at_most": row.at_most, "reached": reached, "baseline": baseline}
        )
    return rows
