"""The things that the experts saw, as the checks hold captions against them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from fusion.box_choice import iou
from fusion.checks.nouns import nouns
from fusion.checks.reading import read
from fusion.checks.section import ChecksSection
from fusion.priors import Box, Priors

_SAME, _TWICE = 0.5, 0.7
"""Intersection over union from which boxes of two detectors, and of one, are of the same thing."""


@dataclass(frozen=True)
class Thing:
    """One thing that a detector boxed, or both did.

    Attributes:
        names: categories that its boxes have.
        best: the box of the best score.
        experts: detectors that saw it.
        nearness: by the depth prior, 0 far to 1 near; None where it is not known.
    """

    names: frozenset[str]
    best: Box
    experts: frozenset[str]
    nearness: float | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 of the best box, as fractions of the image's width and height."""
        return self.best["x1"], self.best["y1"], self.best["x2"], self.best["y2"]

    @property
    def score(self) -> float:
        return self.best["score"]

    @property
    def middle(self) -> tuple[float, float]:
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


class Seen:
    """What was seen of the things that a caption names."""

    def __init__(self, priors: Priors, section: ChecksSection) -> None:
        self._priors, self._section = priors, section
        self._boxes = [*(priors.closed_set or []), *(priors.open_set or [])]
        self._of: dict[str, list[Thing]] = {}

    @cached_property
    def labels(self) -> frozenset[str]:
        """Categories of the boxes."""
        return frozenset(nouns().category(box["label"]) for box in self._boxes)

    @cached_property
    def names(self) -> frozenset[str]:
        """Categories that any expert names: boxes, tags, what Florence-2 speaks of."""
        tags = {nouns().category(tag["tag"]) for tag in self._priors.tags or []}
        told = read(self._priors.description, ()).claims.objects if self._priors.description else ()
        return self.labels | tags | {one.category for one in told}

    @property
    def looked(self) -> bool:
        """Whether a detector and an expert of many words (tags, Florence-2) both looked; one alone proves nothing."""
        found = self._priors.closed_set is not None or self._priors.open_set is not None
        return found and (self._priors.tags is not None or self._priors.description is not None)

    def named(self, category: str) -> bool:
        """Whether an expert names it, a kind of it, what it is a kind of, or something much like it."""
        return any(nouns().may_be(category, one) for one in self.names)

    def things(self, category: str) -> list[Thing]:
        """Everything boxed that may be called by a category, best first."""
        if category not in self._of:
            fit = {label for label in self.labels if nouns().may_be(category, label)}
            boxes = [box for box in self._boxes if nouns().category(box["label"]) in fit]
            self._of[category] = self._doubtless(_merged(boxes, self._nearness), fit)
        return self._of[category]

    def sure(self, category: str) -> list[Thing]:
        """Those that are surely of the category: seen by both detectors, or by one with `sure_score`."""
        found: list[Thing] = []
        for thing in self.things(category):
            plain = any(nouns().is_kind(name, category) for name in thing.names)
            if plain and (len(thing.experts) > 1 or thing.score >= self._section.sure_score):
                found += [] if any(iou(thing.best, one.best) >= _SAME for one in found) else [thing]
        return found

    def _doubtless(self, things: list[Thing], fit: set[str]) -> list[Thing]:
        """Without what the open set alone saw of a class that the closed set has, where it is weak or the closed set is
        surer of something else."""
        if not any("closed_set" in thing.experts for thing in things):
            return things
        others = [box for box in self._priors.closed_set or [] if nouns().category(box["label"]) not in fit]

        def alone(thing: Thing) -> bool:
            return "closed_set" not in thing.experts and (
                thing.score < self._section.open_score
                or any(box["score"] > thing.score and iou(box, thing.best) >= _SAME for box in others)
            )

        return [thing for thing in things if not alone(thing)]

    @cached_property
    def _nearness(self) -> dict[tuple[str, int], float]:
        return {(one["expert"], one["anchor"]): one["nearness"] for one in self._priors.depths or []}


def _merged(boxes: Iterable[Box], nearness: dict[tuple[str, int], float]) -> list[Thing]:
    """Boxes that overlap are one thing, whose best box stays."""
    things: list[Thing] = []
    for box in sorted(boxes, key=lambda one: -one["score"]):
        name = frozenset({nouns().category(box["label"])})
        overlaps = [(iou(thing.best, box), i) for i, thing in enumerate(things)]
        same = [
            (overlap, i)
            for overlap, i in overlaps
            if overlap >= (_TWICE if box["expert"] in things[i].experts else _SAME)
        ]
        if same:
            _, i = max(same)
            thing = things[i]
            things[i] = replace(thing, names=thing.names | name, experts=thing.experts | {box["expert"]})
        else:
            near = nearness.get((box["expert"], box["anchor"]))
            things.append(Thing(name, box, frozenset({box["expert"]}), near))
    return things
