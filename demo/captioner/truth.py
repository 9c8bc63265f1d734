"""Scenes as truth records of `densefusion evaluate`, and the world's vocabulary."""

from collections import Counter
from typing import Any

import numpy as np

from demo.alt_text import AltText
from demo.captioner.rows import PROMPT, Row
from demo.captions import DEPTHS, depth_of, side_of
from demo.metrics.boxes import iou_matrix
from demo.palette import OBJECT_COLOURS
from demo.shapes import CATEGORIES
from demo.truth import ObjectTruth, SceneTruth
from fusion.box_choice import choose_boxes
from fusion.priors import Priors
from fusion.prompt import PromptSection

VOCABULARY: dict[str, Any] = {
    "categories": {
        **{category: [] for category in CATEGORIES},
        "ball": ["sphere"],
        "crate": ["box"],
        "cone": ["traffic cone"],
        "car": ["automobile"],
        "house": ["cottage"],
        "umbrella": ["parasol"],
        "mug": ["cup"],
        "sign": ["signpost", "signboard"],
    },
    "colours": {**{colour: [] for colour in OBJECT_COLOURS}, "purple": ["violet"], "pink": ["rose"]},
    "attributes": {
        "size": {"small": ["little", "tiny"], "large": ["big", "huge"]},
        "side": {
            "left": ["on the left", "on the left side", "at the left", "to the left"],
            "centre": ["in the centre", "near the centre", "in the center", "in the middle"],
            "right": ["on the right", "on the right side", "at the right", "to the right"],
        },
        "depth": {
            "near": [DEPTHS["near"], "nearby"],
            "middle": [DEPTHS["middle"], "in the middle ground", "in the midground"],
            "far": [DEPTHS["far"], "in the distance", "far away"],
        },
    },
    "ignored": [],
}
"""As `vocabulary.yaml` holds it. A medium thing has no size to be said, so `small` said of it is wrong."""
SAME = 0.5
"""Intersection over union from which a box is an object's."""


def truth_record(row: Row, prompt: PromptSection = PROMPT) -> dict[str, Any]:
    """What `fusion.evaluate.truth.TruthRow` holds beside uid, image, caption, alt text and priors."""
    truth = row.truth
    objects = [_object(item, truth) for item in truth.objects]
    relations = []
    if len(objects) > 1:
        left = objects[0]["box"][0] + objects[0]["box"][2] < objects[1]["box"][0] + objects[1]["box"][2]
        relations = [[0, "nearer than", 1], [0, "left of" if left else "right of", 1]]
    return {
        "objects": objects,
        "texts": [item.text for item in truth.objects if item.text is not None],
        "relations": relations,
        "false_claims": _false_claims(truth, row.alt),
        "false_boxes": false_boxes(truth, Priors.of(row.priors), prompt),
    }


def false_boxes(truth: SceneTruth, priors: Priors, prompt: PromptSection) -> list[str]:
    """Labels of the boxes that the prompt shows and that no object of that category has for itself.

    Best score first, a box takes the free object of its label that it overlaps most, by `SAME` or more.
    """
    there = np.array([item.visible_box for item in truth.objects], float).reshape(-1, 4)
    there /= np.array([truth.width, truth.height] * 2)
    free = set(range(len(there)))
    out: list[str] = []
    for box in sorted(choose_boxes(priors, prompt), key=lambda one: -one["score"]):
        overlap = iou_matrix(np.array([[box[edge] for edge in ("x1", "y1", "x2", "y2")]]), there)[0]
        own = [i for i in free if truth.objects[i].category == box["label"] and overlap[i] >= SAME]
        if own:
            free.discard(max(own, key=lambda i: overlap[i]))
        else:
            out.append(box["label"])
    return sorted(out)


def _object(item: ObjectTruth, truth: SceneTruth) -> dict[str, Any]:
    x1, y1, x2, y2 = item.visible_box
    return {
        "category": item.category,
        "colour": item.colour,
        "attributes": {
            "size": None if item.size == "medium" else item.size,
            "side": side_of(item, truth),
            "depth": depth_of(item, truth),
        },
        "box": [
            round(x1 / truth.width, 4),
            round(y1 / truth.height, 4),
            round(x2 / truth.width, 4),
            round(y2 / truth.height, 4),
        ],
        "distance": item.distance,
    }


def _false_claims(truth: SceneTruth, alt: AltText | None) -> list[dict[str, str]]:
    if alt is None:
        return []
    there = Counter((item.colour, item.category) for item in truth.objects)
    return [{"category": category, "colour": colour} for colour, category in alt.claims if not there[colour, category]]
