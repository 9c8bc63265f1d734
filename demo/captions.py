"""Captions of a scene that are right, written from its truth."""

from dataclasses import dataclass

from demo.backgrounds import SETTINGS
from demo.truth import ObjectTruth, SceneTruth

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
SIDES = {"left": "on the left", "centre": "in the centre", "right": "on the right"}
DEPTHS = {"near": "in the foreground", "middle": "in the middle distance", "far": "in the background"}
DENSE_SIDES = SIDES | {"centre": "near the centre"}
_LEFT, _RIGHT = 0.36, 0.64
_NEAR, _FAR = 2 / 3, 0.4
_HIDDEN = 0.05


@dataclass(frozen=True)
class ToldThing:
    """What a dense caption says of one object.

    Attributes:
        size: small, medium or large; medium is not said.
        depth, side: keys of `DEPTHS` and `DENSE_SIDES`.
        text: that it is said to read.
    """

    category: str
    colour: str
    size: str
    depth: str
    side: str
    hidden: bool = False
    text: str | None = None


@dataclass(frozen=True)
class ToldRelation:
    """That one thing is nearer than another, and to its left or right: numbers of the things."""

    near: int
    far: int
    left: bool


@dataclass(frozen=True)
class Told:
    """What a dense caption says.

    Attributes:
        setting: a key of `SETTINGS`.
        counts: how many there are said to be of each category, in place of how many objects there are.
    """

    setting: str
    things: tuple[ToldThing, ...]
    relation: ToldRelation | None = None
    counts: tuple[tuple[str, int], ...] | None = None

    def text(self) -> str:
        sentences = [f"The image shows {SETTINGS[self.setting].phrase}."]
        if self.things:
            number = f"{NUMBERS[len(self.things)]} object{'' if len(self.things) == 1 else 's'}"
            counted = [f"{NUMBERS[n]} {one}{'' if n == 1 else 's'}" for one, n in self.counts or ()] or [number]
            listed = " and ".join([", ".join(counted[:-1]), counted[-1]] if counted[1:] else counted)
            sentences.append(f"There {'is' if listed.startswith('one ') else 'are'} {listed} in view.")
        sentences += [_sentence(one) for one in self.things]
        if self.relation is not None:
            sentences.append(_relation(self.relation, self.things))
        return " ".join(sentences)


def told(truth: SceneTruth) -> Told:
    """Every object with its colour, place and depth, every sign's text, and how the nearest two lie to each other."""
    things = tuple(
        ToldThing(o.category, o.colour, o.size, depth_of(o, truth), side_of(o, truth), o.occlusion > _HIDDEN, o.text)
        for o in truth.objects
    )
    near = ToldRelation(0, 1, is_left(truth.objects[0], truth.objects[1])) if len(things) >= 2 else None
    return Told(truth.setting, things, near)


def dense_caption(truth: SceneTruth) -> str:
    """All that `told` holds."""
    return told(truth).text()


def brief_caption(truth: SceneTruth) -> str:
    """The setting, and of every object colour, category, side and depth."""
    sentences = [f"The image shows {SETTINGS[truth.setting].phrase}."]
    for item in truth.objects:
        place = f"{SIDES[side_of(item, truth)]} {DEPTHS[depth_of(item, truth)]}"
        sentences.append(_capital(f"{with_article(f'{item.colour} {item.category}')} {place}."))
    return " ".join(sentences)


def name(item: ObjectTruth | ToldThing) -> str:
    """As a caption calls an object, without its article: `small red ball`, or `red ball` for a medium one."""
    size = "" if item.size == "medium" else f"{item.size} "
    return f"{size}{item.colour} {item.category}"


def with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def side_of(item: ObjectTruth, truth: SceneTruth) -> str:
    """left, centre or right, by the middle of what is seen of it."""
    place = _middle(item) / truth.width
    return "left" if place < _LEFT else "right" if place > _RIGHT else "centre"


def depth_of(item: ObjectTruth, truth: SceneTruth) -> str:
    """near, middle or far, by the row on which it stands between the horizon and the lower edge."""
    share = (item.full_box[3] - truth.horizon) / (truth.height - truth.horizon)
    return "near" if share > _NEAR else "middle" if share > _FAR else "far"


def is_left(one: ObjectTruth, other: ObjectTruth) -> bool:
    """Whether the middle of what is seen of one lies left of the other's."""
    return _middle(one) < _middle(other)


def _sentence(thing: ToldThing) -> str:
    text = f"{with_article(name(thing))} stands {DEPTHS[thing.depth]} {DENSE_SIDES[thing.side]}"
    if thing.hidden:
        text += ", partly hidden by something nearer"
    if thing.text is not None:
        text += f', and it reads "{thing.text}"'
    return _capital(text) + "."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _relation(relation: ToldRelation, things: tuple[ToldThing, ...]) -> str:
    first, second = (f"{things[i].colour} {things[i].category}" for i in (relation.near, relation.far))
    where = "left" if relation.left else "right"
    return f"The {first} is closer to the camera than the {second}, to the {where} of it."


def _middle(item: ObjectTruth) -> float:
    return (item.visible_box[0] + item.visible_box[2]) / 2
