"""Faults such as a captioner makes, planted into right captions of scenes."""

import random
import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from demo.captions import DENSE_SIDES, DEPTHS, Told, ToldRelation, ToldThing
from demo.palette import OBJECT_COLOURS
from demo.scene import SIZE_WORDS
from demo.shapes import CATEGORIES
from demo.signs import random_word

_MOST_THINGS = 8
"""That a caption has a number's word for."""
_LOOPS = (4, 6)
"""Times that a sentence is said."""


@dataclass(frozen=True)
class Draft:
    """A caption with faults.

    Attributes:
        told: what it says, apart from faults of its wording.
        text: as it is written.
        finish_reason: as an engine gives it.
    """

    told: Told
    text: str
    finish_reason: str = "stop"


def plant(told: Told, rng: random.Random) -> Draft:
    """A fault of a kind drawn by chance, of those for which the caption gives occasion."""
    draws = list(_FAULTS)
    while True:
        fault = rng.choices(draws, [_FAULTS[one] for one in draws])[0]
        draft = fault(told, rng)
        if draft is not None:
            return draft
        draws.remove(fault)


def _altered_text(told: Told, rng: random.Random) -> Draft | None:
    """One letter of a text is another, is missing, or is there twice."""

    def altered(text: str) -> str:
        i = rng.choice([i for i, c in enumerate(text) if c.isalnum()])
        other = rng.choice(string.ascii_uppercase if text[i].isupper() else string.ascii_lowercase)
        return text[:i] + rng.choice((other, "", text[i] + other)) + text[i + 1 :]

    return _other_text(told, rng, altered)


def _shortened_text(told: Told, rng: random.Random) -> Draft | None:
    """A word of several is missing."""

    def shortened(text: str) -> str | None:
        words = text.split()
        if len(words) < 2:
            return None
        words.pop(rng.randrange(len(words)))
        return " ".join(words)

    return _other_text(told, rng, shortened)


def _invented_text(told: Told, rng: random.Random) -> Draft | None:
    def invented(text: str) -> str:
        words = (random_word(rng, "train") for _ in text.split())
        return " ".join(word.upper() if text.isupper() else word.title() for word in words)

    return _other_text(told, rng, invented)


def _unquoted_text(told: Told, rng: random.Random) -> Draft | None:
    return _other_text(told, rng, lambda text: None, drop=True)


def _other_text(
    told: Told, rng: random.Random, change: Callable[[str], str | None], drop: bool = False
) -> Draft | None:
    signs = [i for i, one in enumerate(told.things) if one.text is not None]
    if not signs:
        return None
    i = rng.choice(signs)
    text = change(told.things[i].text or "")
    return _draft(_with(told, i, replace(told.things[i], text=text))) if text or drop else None


def _exchanged_texts(told: Told, rng: random.Random) -> Draft | None:
    """What one sign reads, another does, too."""
    signs = [i for i, one in enumerate(told.things) if one.category == "sign"]
    texts = [told.things[i].text for i in signs]
    if len(set(texts)) < 2:
        return None
    i, j = rng.choice([(i, j) for i in signs for j in signs if told.things[i].text not in (None, told.things[j].text)])
    return _draft(_with(told, j, replace(told.things[j], text=told.things[i].text)))


def _added_thing(told: Told, rng: random.Random) -> Draft | None:
    there = {one.category for one in told.things}
    if len(told.things) >= _MOST_THINGS:
        return None
    category = rng.choice([one for one in CATEGORIES if one not in there and one != "sign"])
    size, colour = rng.choice(list(SIZE_WORDS)), rng.choice(list(OBJECT_COLOURS))
    depth, side = rng.choice(list(DEPTHS)), rng.choice(list(DENSE_SIDES))
    thing = ToldThing(category, colour, size, depth, side, hidden=rng.random() < 0.5)
    at = rng.randint(0, len(told.things))
    things = (*told.things[:at], thing, *told.things[at:])
    relation = told.relation
    if len(things) >= 2 and (relation is None or at < 2):
        relation = ToldRelation(0, 1, rng.random() < 0.5)
    return _draft(replace(told, things=things, relation=relation))


def _moved_thing(told: Told, rng: random.Random) -> Draft | None:
    """One thing on the left is on the right, or the other way round."""
    beside = [i for i, one in enumerate(told.things) if one.side != "centre"]
    if not beside:
        return None
    i = rng.choice(beside)
    side = "left" if told.things[i].side == "right" else "right"
    return _draft(_with(told, i, replace(told.things[i], side=side)))


def _exchanged_depths(told: Told, rng: random.Random) -> Draft | None:
    """What is in the foreground and what is in the background change places."""
    near = [i for i, one in enumerate(told.things) if one.depth == "near"]
    far = [i for i, one in enumerate(told.things) if one.depth == "far"]
    if not near or not far:
        return None
    i, j = rng.choice(near), rng.choice(far)
    return _draft(_with(_with(told, i, replace(told.things[i], depth="far")), j, replace(told.things[j], depth="near")))


def _turned_sideways(told: Told, rng: random.Random) -> Draft | None:
    relation = told.relation
    return _draft(replace(told, relation=replace(relation, left=not relation.left))) if relation else None


def _turned_away(told: Told, rng: random.Random) -> Draft | None:
    """The farther one is called the nearer."""
    relation = told.relation
    if relation is None:
        return None
    return _draft(replace(told, relation=ToldRelation(relation.far, relation.near, not relation.left)))


def _miscounted(told: Told, rng: random.Random) -> Draft | None:
    """The number of things of each category is told, one of them wrongly."""
    counts = list(Counter(one.category for one in told.things).items())
    if not counts:
        return None
    i = rng.randrange(len(counts))
    category, n = counts[i]
    counts[i] = category, n + 1 if n == 1 or rng.random() < 0.5 else n - 1
    return _draft(replace(told, counts=tuple(counts)))


def _looped(told: Told, rng: random.Random) -> Draft:
    """A sentence is said over and over, to the end or to where the answer's tokens ran out."""
    sentences = re.split(r"(?<=\.) ", told.text())
    at = rng.randrange(len(sentences))
    looped = [*sentences[:at], *[sentences[at]] * rng.randint(*_LOOPS)]
    if rng.random() < 0.5:
        return Draft(told, " ".join([*looped, *sentences[at + 1 :]]))
    return Draft(told, " ".join(looped), "length")


def _broken_off(told: Told, rng: random.Random) -> Draft:
    words = told.text().split()
    kept = words[: rng.randint(len(words) // 3, len(words) - 1)]
    return Draft(told, " ".join(kept), rng.choice(("length", "stop")))


def _with(told: Told, i: int, thing: ToldThing) -> Told:
    return replace(told, things=(*told.things[:i], thing, *told.things[i + 1 :]))


def _draft(told: Told) -> Draft:
    return Draft(told, told.text())


_FAULTS: dict[Callable[[Told, random.Random], Draft | None], float] = {
    _altered_text: 3,
    _shortened_text: 1,
    _invented_text: 2,
    _unquoted_text: 4,
    _exchanged_texts: 2,
    _added_thing: 4,
    _moved_thing: 4,
    _exchanged_depths: 2,
    _turned_sideways: 2,
    _turned_away: 2,
    _miscounted: 0.5,
    _looped: 0.5,
    _broken_off: 0.5,
}
"""How often each is planted, to each other."""
