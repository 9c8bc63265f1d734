"""A caption put right against what the experts saw, by what the checks find: the answer that a repair should give.

A fault is put right where the notes say how: the text that was read, the other side, the relation turned round, the
number of boxes. Where they do not, what was said goes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

from demo.captioner.perceived import Rows
from demo.captions import DENSE_SIDES, DEPTHS, Told, ToldRelation, ToldThing, depth_of, is_left, side_of
from demo.metrics.signs import sign_text
from demo.truth import ObjectTruth, SceneTruth
from fusion.checks import Caption, ChecksSection, Finding, FindingKind, check
from fusion.priors import Box, Priors

_SECTION = ChecksSection()
_TEXTS = {FindingKind.UNSEEN_TEXT, FindingKind.MISQUOTED_TEXT, FindingKind.TEXT_LEFT_OUT}
_SIDES_AT = {"left": 0.2, "centre": 0.5, "right": 0.8}
"""Where things of a side lie, about: shares of the picture's width."""


def faults(text: str, priors: Priors, finish_reason: str = "stop") -> list[Finding]:
    """What the checks find, as the demo's preset has them."""
    return check(Caption(text, finish_reason), priors, _SECTION)


def repaired(told: Told, truth: SceneTruth, rows: Rows) -> Told:
    """A caption with as few findings as changes of one claim after the other can leave.

    Args:
        rows: what the experts saw; the scene's truth only decides between changes that the checks like as well.
    """
    priors = Priors.of(rows)
    found = faults(told.text(), priors)
    while found:
        options = list(_Repairs(told, truth, rows).options(found))
        left = [faults(option.text(), priors) for option in options]
        best = min(range(len(options)), key=lambda i: len(left[i]), default=None)
        if best is None or len(left[best]) >= len(found):
            break
        told, found = options[best], left[best]
    return told


class _Repairs:
    """Captions that differ from one in a claim, those that are rather wanted first."""

    def __init__(self, told: Told, truth: SceneTruth, rows: Rows) -> None:
        self._told, self._truth = told, truth
        self._lines = rows["ocr"]["lines"] if "ocr" in rows else []
        priors = Priors.of(rows)
        self._boxes: list[Box] = [*(priors.closed_set or []), *(priors.open_set or [])]
        self._owners = _owners(told, truth)

    def options(self, found: list[Finding]) -> Iterator[Told]:
        kinds = {one.kind for one in found}
        if kinds & _TEXTS:
            yield from self._texts()
        if FindingKind.UNSEEN_OBJECT in kinds:
            yield from self._without(" ".join(f.detail for f in found if f.kind == FindingKind.UNSEEN_OBJECT))
        if FindingKind.WRONG_COUNT in kinds:
            yield from self._counts()
        if FindingKind.WRONG_RELATION in kinds and self._told.relation:
            yield replace(self._told, relation=replace(self._told.relation, left=not self._told.relation.left))
            yield replace(self._told, relation=None)
        if FindingKind.WRONG_SIDE in kinds:
            yield from self._sides()
        if FindingKind.WRONG_DEPTH in kinds:
            yield from self._depths()

    def _texts(self) -> Iterator[Told]:
        """A sign reads what was read on it, or nothing."""
        for i, owner in enumerate(self._owners):
            if self._told.things[i].category == "sign":
                read = sign_text(self._lines, owner, self._truth) if owner is not None else ""
                for text in (read, None) if read else (None,):
                    yield self._with(i, text=text)

    def _without(self, unseen: str) -> Iterator[Told]:
        """All things of a name that the findings say go; and how the nearest two of the rest lie to each other."""
        for category in dict.fromkeys(one.category for one in self._told.things):
            if f'"{category}"' in unseen:
                kept = [i for i, one in enumerate(self._told.things) if one.category != category]
                counts = self._told.counts
                yield Told(
                    self._told.setting,
                    tuple(self._told.things[i] for i in kept),
                    self._relation(kept),
                    tuple(one for one in counts if one[0] != category) if counts is not None else None,
                )

    def _relation(self, kept: list[int]) -> ToldRelation | None:
        if self._told.relation is None or len(kept) < 2:
            return None
        if self._told.relation.near in kept and self._told.relation.far in kept:
            return replace(
                self._told.relation, near=kept.index(self._told.relation.near), far=kept.index(self._told.relation.far)
            )
        one, other = (self._owners[i] for i in kept[:2])
        if one is not None and other is not None:
            return ToldRelation(0, 1, is_left(one, other))
        places = [_SIDES_AT[self._told.things[i].side] for i in kept[:2]]
        return ToldRelation(0, 1, places[0] < places[1]) if places[0] != places[1] else None

    def _counts(self) -> Iterator[Told]:
        counts = self._told.counts or ()
        told = Counter(one.category for one in self._told.things)
        yield replace(self._told, counts=tuple((category, told[category] or n) for category, n in counts))
        for i, (category, n) in enumerate(counts):
            for other in (n - 1, n + 1):
                if 0 < other < 9:
                    yield replace(self._told, counts=(*counts[:i], (category, other), *counts[i + 1 :]))
        yield replace(self._told, counts=None)

    def _sides(self) -> Iterator[Told]:
        """Where it is; else where a box of its name is."""
        moves = [(i, side) for i, one in enumerate(self._told.things) for side in DENSE_SIDES if side != one.side]
        for i, side in sorted(moves, key=lambda move: self._strangeness(*move)):
            yield self._with(i, side=side)

    def _strangeness(self, i: int, side: str) -> tuple[bool, float]:
        owner, category = self._owners[i], self._told.things[i].category
        middles = [(box["x1"] + box["x2"]) / 2 for box in self._boxes if box["label"] == category]
        true = owner is not None and side_of(owner, self._truth) == side
        return not true, min((abs(x - _SIDES_AT[side]) for x in middles), default=1.0)

    def _depths(self) -> Iterator[Told]:
        """The relation turned round; one thing, or two, at other depths, truer ones first."""
        relation = self._told.relation
        if relation is not None:
            yield replace(self._told, relation=ToldRelation(relation.far, relation.near, not relation.left))
        moves = [(i, depth) for i, one in enumerate(self._told.things) for depth in DEPTHS if depth != one.depth]
        moves.sort(key=lambda move: not self._at(*move))
        for i, depth in moves:
            yield self._with(i, depth=depth)
        things = self._told.things
        for i, j in permutations(range(len(things)), 2):
            if (things[i].depth, things[j].depth) == ("near", "far"):
                yield _changed(self._with(i, depth="far"), j, depth="near")
        if relation is not None:
            yield replace(self._told, relation=None)

    def _at(self, i: int, depth: str) -> bool:
        owner = self._owners[i]
        return owner is not None and depth_of(owner, self._truth) == depth

    def _with(self, i: int, **changes: str | None) -> Told:
        return _changed(self._told, i, **changes)


def _changed(told: Told, i: int, **changes: str | None) -> Told:
    things: list[ToldThing] = list(told.things)
    things[i] = replace(things[i], **changes)  # type: ignore[arg-type]
    return replace(told, things=tuple(things))


def _owners(told: Told, truth: SceneTruth) -> list[ObjectTruth | None]:
    """Of each thing the object of its colour and category, each object once."""
    free = list(truth.objects)
    owners: list[ObjectTruth | None] = []
    for thing in told.things:
        own = next((o for o in free if (o.category, o.colour) == (thing.category, thing.colour)), None)
        owners.append(own)
        if own is not None:
            free = [o for o in free if o is not own]
    return owners
