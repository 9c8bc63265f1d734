"""How well Florence-2's caption and regions tell what is in a scene."""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from demo.backgrounds import SETTINGS
from demo.captions import DEPTHS, SIDES, brief_caption
from demo.metrics.boxes import box_truth, f1, found_boxes, mean_boxes
from demo.metrics.clusters import majority
from demo.metrics.tags import best_fixed_tags, tag_figures
from demo.palette import OBJECT_COLOURS
from demo.shapes import CATEGORIES
from demo.truth import SceneTruth

Clause = tuple[str, str, str, str]
"""Colour, category, and the phrases for side and depth."""
_PARTS = {"class": slice(1, 2), "named": slice(0, 2), "placed": slice(0, 4)}
"""Of a clause, that each figure of captions is about."""


def clauses(text: str) -> list[Clause]:
    """What a caption says of objects, where it is in the words of `brief_caption`."""
    return [match.groups() for match in _clause().finditer(text)]  # type: ignore[misc]


def caption_figures(captions: Sequence[str], truths: Sequence[SceneTruth]) -> dict[str, float]:
    """Over all scenes together: F1 of the objects that are named, and the share of settings that are.

    Returns:
        `caption_class_f1` of categories, `caption_named_f1` of colour and category, `caption_placed_f1` of these at the
        right side and depth, `caption_setting`.

    Raises:
        ValueError: different numbers of captions and scenes, or no object.
    """
    said, right = [clauses(text) for text in captions], _right(truths)
    settings = [SETTINGS[truth.setting].phrase in text for text, truth in zip(captions, truths, strict=True)]
    figures = {
        f"caption_{name}_f1": tag_figures(_tags(said, part), _tags(right, part)).f1 for name, part in _PARTS.items()
    }
    return figures | {"caption_setting": sum(settings) / len(settings)}


def fixed_caption_figures(truths: Sequence[SceneTruth]) -> dict[str, float]:
    """The same of the best captions that do not look: for each figure the most frequent clauses, as many as pay."""
    figures = {}
    for name, part in _PARTS.items():
        right = _tags(_right(truths), part)
        figures[f"caption_{name}_f1"] = tag_figures([best_fixed_tags(right)] * len(right), right).f1
    return figures | {"caption_setting": majority([truth.setting for truth in truths])}


def region_figures(regions: Sequence[Sequence[dict[str, Any]]], truths: Sequence[SceneTruth]) -> dict[str, float]:
    """F1 of regions over all scenes together.

    Args:
        regions: rows of schemas.tables.BOX of each scene; labels are a colour and a category.

    Returns:
        `region_f1` of boxes with the right category and an IoU of 0.5 or more, `region_named_f1` of those of them that
        have the right colour too.

    Raises:
        ValueError: different numbers of regions and scenes, or no object.
    """
    bare = [[row | {"label": row["label"].split()[-1]} for row in rows] for rows in regions]
    return {
        "region_f1": f1([found_boxes(rows) for rows in bare], [box_truth(truth) for truth in truths]),
        "region_named_f1": f1([found_boxes(rows) for rows in regions], [box_truth(truth, True) for truth in truths]),
    }


def fixed_region_figures(truths: Sequence[SceneTruth]) -> dict[str, float]:
    """The same of the mean box of every category, and of every colour and category, in every picture."""
    figures = {}
    for name, coloured in (("region_f1", False), ("region_named_f1", True)):
        boxes = [box_truth(truth, coloured) for truth in truths]
        figures[name] = f1([mean_boxes(boxes)] * len(boxes), boxes, threshold=0.0)
    return figures


def _right(truths: Sequence[SceneTruth]) -> list[list[Clause]]:
    return [clauses(brief_caption(truth)) for truth in truths]


def _tags(said: Sequence[Sequence[Clause]], part: slice) -> list[list[str]]:
    """Parts of each caption's clauses; equal ones are numbered, so that two red balls are two."""
    counts = [Counter(" ".join(clause[part]) for clause in one) for one in said]
    return [[f"{words} {i}" for words, count in one.items() for i in range(count)] for one in counts]


@functools.cache
def _clause() -> re.Pattern[str]:
    colours, categories, sides, depths = (
        "|".join(names) for names in (OBJECT_COLOURS, CATEGORIES, SIDES.values(), DEPTHS.values())
    )
    return re.compile(rf"\bAn? ({colours}) ({categories}) ({sides}) ({depths})\.")
