"""Texts for the contrastive models, written from a scene's truth together with what they claim.

A text states claims, a scene has facts; the text is right for every scene whose facts hold its claims. So a batch
knows which of its other texts are right for an image too, and does not push them away.
What signs say is left out: a tower that sees 160 px cannot read it.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

from demo.backgrounds import SETTINGS
from demo.captions import DEPTHS, SIDES, depth_of, side_of, with_article
from demo.palette import OBJECT_COLOURS
from demo.shapes import CATEGORIES
from demo.truth import SceneTruth
from experts.taggers.base import TagsSection
from experts.taggers.open_clip import OpenClipTagger

TEMPLATES = ("a photo of {}", "a photo of {}", "a photo of {}", "{}", "a picture of {}", "an image of {}")
"""Around a label; the tags expert uses the first."""
_AMBIGUOUS = """
alley apartment ball balloon banner barn barrel basket beach bedroom bin bottle bowl box brick bucket building bush
cable cactus can car carpet cartoon chimney chocolate cliff cloud coat coffee collage column cone corridor cottage
crate crosswalk cup curtain desert doll door drawing drone farm fence field flower fog football forest frame garden
glass grass hedge highway hill house ice island jar kitchen kite label lake lamp leaf letter light living logo
meadow metal milk mirror moon mountain mug office orange painting paper park path pattern picture plastic playground
pond poster reflection river road robot roof room sand sea shadow shelf shop sidewalk sign sky skyscraper snow soil
square star stone street sun sunset table taxi tea tent text texture tie tile tomato tower toy tractor traffic
trailer tree umbrella valley van vineyard wall water wheel window wood
"""
"""Words that may be true of a scene though its truth does not name them."""


@dataclass(frozen=True)
class Claim:
    """What is said of one object; None is not said. A claim without a category is about the setting."""

    category: str | None = None
    colour: str | None = None
    side: str | None = None
    depth: str | None = None
    setting: str | None = None


@dataclass(frozen=True)
class Text:
    """A text and the claims by which it is right or wrong."""

    text: str
    claims: frozenset[Claim]


def labels() -> list[Text]:
    """The names by which tags are asked for: categories, settings, coloured categories; in this order."""
    names = [Text(category, frozenset({Claim(category)})) for category in CATEGORIES]
    names += [Text(setting, frozenset({Claim(setting=setting)})) for setting in SETTINGS]
    names += [
        Text(f"{colour} {category}", frozenset({Claim(category, colour)}))
        for category, colour in product(CATEGORIES, OBJECT_COLOURS)
    ]
    return names


def strangers() -> list[str]:
    """Labels of the tags expert's own list that are true of no scene."""
    ambiguous = set(_AMBIGUOUS.split())
    return [label for label in _nouns() if not ambiguous & set(label.split())]


def facts(truth: SceneTruth) -> frozenset[Claim]:
    """Every claim that is right for the scene."""
    found = {Claim(setting=truth.setting)}
    for item in truth.objects:
        for colour, side, depth in product(
            (None, item.colour), (None, side_of(item, truth)), (None, depth_of(item, truth))
        ):
            found.add(Claim(item.category, colour, side, depth))
    return frozenset(found)


def right(claims: Sequence[frozenset[Claim]], scenes: Sequence[frozenset[Claim]]) -> list[list[bool]]:
    """For each scene's facts, for each text's claims: whether the text is right for the scene."""
    return [[stated <= known for stated in claims] for known in scenes]


def caption(truth: SceneTruth, rng: random.Random) -> Text:
    """A text that is right for the scene: mostly dense, else as short as an alt text, a list, or a single phrase."""
    setting = Claim(setting=truth.setting)
    objects = [Claim(item.category, item.colour, side_of(item, truth), depth_of(item, truth)) for item in truth.objects]
    style = rng.choices(("dense", "alt", "list", "phrase"), (0.5, 0.24, 0.14, 0.12))[0]
    if style == "dense":
        said = [_less(claim, rng, colour=0.95, side=0.85, depth=0.6) for claim in objects]
        return _text(_dense(said, truth.setting, rng), [*said, setting])
    rng.shuffle(objects)
    if style == "alt":
        said = [_less(claim, rng, colour=0.8, side=0.15, depth=0) for claim in objects[: rng.randint(1, 3)]]
        where = rng.random() < 0.7
        return _text(_alt(said, truth.setting if where or not said else None, rng), [*said, *[setting] * where])
    if style == "list":
        said = [_less(claim, rng, colour=0.6, side=0, depth=0) for claim in objects]
        where = rng.random() < 0.6
        names = [_name(claim) for claim in said] + [truth.setting] * (where or not said)
        return _text(rng.choice((", ", " , ", " and ")).join(names), [*said, *[setting] * where])
    chosen = rng.choice([*objects, setting])
    if chosen.category is None:
        return _text(rng.choice(TEMPLATES).format(_place(truth.setting, rng)), [chosen])
    chosen = _less(chosen, rng, colour=0.6, side=0.15, depth=0.1)
    return _text(rng.choice(TEMPLATES).format(_clause(chosen, rng)), [chosen])


def altered(truth: SceneTruth, rng: random.Random) -> Text | None:
    """A dense text with one thing wrong: a colour, a class, a side or the setting. None where chance made it right."""
    objects = [
        _less(Claim(o.category, o.colour, side_of(o, truth), depth_of(o, truth)), rng, colour=1, side=0.85, depth=0.6)
        for o in truth.objects
    ]
    setting = truth.setting
    where = rng.randrange(len(objects) + 1)
    if where == len(objects):
        setting = _other(tuple(SETTINGS), setting, rng)
    else:
        claim = objects[where]
        kind = rng.choice(("colour", "category", "side") if claim.side else ("colour", "category"))
        if kind == "colour":
            claim = replace(claim, colour=_other(tuple(OBJECT_COLOURS), claim.colour, rng))
        elif kind == "category":
            claim = replace(claim, category=_other(CATEGORIES, claim.category, rng))
        else:
            claim = replace(claim, side=_other(("left", "right"), claim.side, rng))
        objects[where] = claim
    text = _text(_dense(objects, setting, rng), [*objects, Claim(setting=setting)])
    return None if text.claims <= facts(truth) else text


def label_text(label: str, rng: random.Random) -> str:
    """A label in a sentence, with or without its article."""
    phrase = rng.choice((label, label, with_article(label)))
    if label in SETTINGS and rng.random() < 0.3:
        phrase = SETTINGS[label].phrase
    return rng.choice(TEMPLATES).format(phrase)


def words() -> list[str]:
    """Every word that a text here may hold, sorted, each once."""
    texts: list[str] = [*TEMPLATES, *SIDES.values(), *DEPTHS.values(), *_LINKS]
    texts += [*CATEGORIES, *OBJECT_COLOURS, *SETTINGS, *(setting.phrase for setting in SETTINGS.values())]
    texts += [*_ALT, *_DENSE, "an and small medium large partly hidden reads closer stands"]
    texts += _nouns()
    bare = "".join(c if c.isalpha() else " " for c in " ".join(texts).lower())
    return sorted(set(bare.split()))


_LINKS = ("is", "with", "there is", "stands", "we see")
_ALT = ("{what} in {where}", "{where}: {what}", "{what}, {where}", "photo of {what}, {where}", "{where} with {what}")
_DENSE = ("the image shows {where}.", "{where}.", "a photo of {where}.", "this is {where}.")


def _nouns() -> list[str]:
    """The labels that the tags expert takes by default."""
    return OpenClipTagger(TagsSection()).listed()


def _dense(objects: list[Claim], setting: str, rng: random.Random) -> str:
    opening = rng.choice(_DENSE).format(where=_place(setting, rng))
    return " ".join([opening, *(f"{_clause(claim, rng)}." for claim in objects)])


def _alt(objects: list[Claim], setting: str | None, rng: random.Random) -> str:
    what = " and ".join(_clause(claim, rng) for claim in objects)
    if setting is None:
        return what
    where = _place(setting, rng)
    return rng.choice(_ALT).format(what=what, where=where) if what else where


def _clause(claim: Claim, rng: random.Random) -> str:
    parts = [with_article(_name(claim))]
    places = [SIDES[claim.side]] if claim.side else []
    places += [DEPTHS[claim.depth]] if claim.depth else []
    rng.shuffle(places)
    return " ".join([*parts, *places])


def _place(setting: str, rng: random.Random) -> str:
    return rng.choice((SETTINGS[setting].phrase, SETTINGS[setting].phrase, with_article(setting), setting))


def _name(claim: Claim) -> str:
    return " ".join(word for word in (claim.colour, claim.category) if word)


def _less(claim: Claim, rng: random.Random, **kept: float) -> Claim:
    """The claim with each named part kept with its probability."""
    return replace(claim, **{part: None for part, share in kept.items() if rng.random() >= share})


def _other(choices: Iterable[str], but: str | None, rng: random.Random) -> str:
    return rng.choice([choice for choice in choices if choice != but])


def _text(text: str, claims: Iterable[Claim]) -> Text:
    return Text(text, frozenset(claims))
