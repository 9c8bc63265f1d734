"""How wrong priors are: the figures of which `demo.captioner.noise` is made, of experts or of the noise itself."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from demo.captioner.noise import MOSTLY, PARTLY
from demo.captioner.perceived import Rows
from demo.metrics.boxes import iou_matrix
from demo.metrics.depth import LEAST_RATIO
from demo.metrics.signs import exact, lines_on, sign_text
from demo.truth import ObjectTruth, SceneTruth

SAME, SOME = 0.5, 0.1
"""Intersection over union from which a box is at an object's place, and from which it lies over some of it."""
EDGES = ("x1", "y1", "x2", "y2")
_HIDDEN = ("free", "partly hidden", "mostly hidden")


def noise_figures(seen: Sequence[tuple[SceneTruth, Rows]]) -> dict[str, float]:
    """Figures by name. Shares are of objects, signs or pairs; what is `a picture` is a mean over pictures."""
    figures: dict[str, float] = {}
    for expert in ("closed_set", "open_set"):
        figures |= {f"{expert}: {name}": value for name, value in _detector(seen, expert).items()}
    return figures | _tags(seen) | _signs(seen) | _depths(seen)


def _detector(seen: Sequence[tuple[SceneTruth, Rows]], expert: str) -> dict[str, float]:
    total: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    errors: list[np.ndarray] = []
    right_scores: list[float] = []
    false_scores: list[float] = []
    for truth, rows in seen:
        boxes = rows[expert]["boxes"]
        there = _fractions(truth.objects, truth)
        corners = np.array([[box[edge] for edge in EDGES] for box in boxes], float).reshape(-1, 4)
        owners = _owners(boxes, corners, there, truth)
        for i, owner in enumerate(owners):
            if owner is None:
                false_scores.append(boxes[i]["score"])
                wrong[_kind(boxes[i]["label"], corners[i], there, truth)] += 1
            else:
                right_scores.append(boxes[i]["score"])
                sides = there[owner][2:] - there[owner][:2]
                errors.append(np.abs(corners[i] - there[owner]) / np.concatenate([sides, sides]))
        for j, item in enumerate(truth.objects):
            hidden = _HIDDEN[(item.occlusion > PARTLY) + (item.occlusion > MOSTLY)]
            total[hidden] += 1
            missed[hidden] += j not in owners
    figures = {f"missed, {hidden}": missed[hidden] / total[hidden] for hidden in _HIDDEN if total[hidden]}
    edges = np.concatenate(errors) if errors else np.zeros(1)
    figures |= {f"edge error, {share} %": float(np.percentile(edges, share)) for share in (50, 90)}
    figures |= {f"{kind}, a picture": wrong[kind] / len(seen) for kind in _WRONG}
    for name, scores in (("scores", right_scores), ("false scores", false_scores)):
        if scores:
            figures |= {f"{name}, {share} %": float(np.percentile(scores, share)) for share in (5, 50, 95)}
    return figures


_WRONG = ("second boxes", "boxes under a present name", "boxes under an absent name", "loose boxes", "strays")


def _kind(label: str, box: np.ndarray, there: np.ndarray, truth: SceneTruth) -> str:
    """Which of `_WRONG` a box is that no object of its label has for itself."""
    present = {item.category for item in truth.objects}
    overlap = iou_matrix(box[None], there)[0]
    if len(overlap) and overlap.max() >= SAME:
        if truth.objects[int(overlap.argmax())].category == label:
            return "second boxes"
        return f"boxes under {'a present' if label in present else 'an absent'} name"
    return "loose boxes" if label in present else "strays"


def _owners(
    boxes: Sequence[dict[str, Any]], corners: np.ndarray, there: np.ndarray, truth: SceneTruth
) -> list[int | None]:
    """Of each box the object of its label at its place, best score first, each object once."""
    overlap = iou_matrix(corners, there)
    owners: list[int | None] = [None] * len(boxes)
    free = set(range(len(there)))
    for i in sorted(range(len(boxes)), key=lambda i: -boxes[i]["score"]):
        own = [j for j in free if truth.objects[j].category == boxes[i]["label"] and overlap[i, j] >= SAME]
        if own:
            owners[i] = max(own, key=lambda j: overlap[i, j])
            free.discard(owners[i])
    return owners


def _tags(seen: Iterable[tuple[SceneTruth, Rows]]) -> dict[str, float]:
    there = given = both = pictures = 0
    for truth, rows in seen:
        true = {item.category for item in truth.objects} | {truth.setting}
        said = {tag["tag"] for tag in rows["tags"]["tags"]}
        there, given, both, pictures = there + len(true), given + len(said), both + len(true & said), pictures + 1
    return {"tags: missed": 1 - both / there, "tags: false, a picture": (given - both) / pictures}


def _signs(seen: Sequence[tuple[SceneTruth, Rows]]) -> dict[str, float]:
    read: dict[str, Counter[str]] = defaultdict(Counter)
    stray = 0
    for truth, rows in seen:
        lines = rows["ocr"]["lines"]
        signs = [item for item in truth.objects if item.text is not None]
        stray += len(lines) - len({i for sign in signs for i in lines_on(lines, sign, truth)})
        for sign in signs:
            said = sign_text(lines, sign, truth)
            how = "exact" if exact(said, str(sign.text)) else "wrong" if said else "none"
            read[str(sign.condition)][how] += 1
    figures = {
        f"signs: {condition}, {how}": counts[how] / counts.total()
        for condition, counts in sorted(read.items())
        for how in ("exact", "wrong", "none")
    }
    return figures | {"lines where no sign is, a picture": stray / len(seen)}


def _depths(seen: Iterable[tuple[SceneTruth, Rows]]) -> dict[str, float]:
    """Pairs of objects, each seen in the box that is its own, that are named in the wrong order."""
    wrong = pairs = 0
    for truth, rows in seen:
        near = {(row["expert"], row["anchor"]): row["nearness"] for row in rows["depth"]["objects"]}
        boxes = rows["closed_set"]["boxes"]
        corners = np.array([[box[edge] for edge in EDGES] for box in boxes], float).reshape(-1, 4)
        owners = _owners(boxes, corners, _fractions(truth.objects, truth), truth)
        known = {
            owner: near[place]
            for box, owner in zip(boxes, owners, strict=True)
            if owner is not None and (place := ("closed_set", box["anchor"])) in near
        }
        for a, b in combinations(sorted(known), 2):  # near to far
            if truth.objects[b].distance / truth.objects[a].distance >= LEAST_RATIO:
                pairs += 1
                wrong += known[b] > known[a]
    return {"depth: pairs in the wrong order": wrong / pairs} if pairs else {}


def _fractions(objects: Sequence[ObjectTruth], truth: SceneTruth) -> np.ndarray:
    boxes = np.array([item.visible_box for item in objects], float).reshape(-1, 4)
    return boxes / np.array([truth.width, truth.height] * 2)
