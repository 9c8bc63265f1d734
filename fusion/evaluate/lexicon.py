"""Where in a sentence words of the vocabulary stand, and words that relate two things."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fusion.evaluate.vocabulary import Vocabulary
from fusion.evaluate.words import plurals

Kind = Literal["category", "colour", "attribute", "relation", "ignored"]
Relation = Literal["left of", "right of", "nearer than", "farther than"]

RELATIONS: dict[Relation, tuple[str, ...]] = {
    "left of": (
        "left of",
        "to the left of",
        "on the left of",
        "at the left of",
        "to the left side of",
        "on the left side of",
        "on the left-hand side of",
    ),
    "right of": (
        "right of",
        "to the right of",
        "on the right of",
        "at the right of",
        "to the right side of",
        "on the right side of",
        "on the right-hand side of",
    ),
    "nearer than": (
        "in front of",
        "ahead of",
        "closer than",
        "nearer than",
        "closer to the camera than",
        "closer to the viewer than",
        "closer to us than",
        "nearer to the camera than",
        "nearer to the viewer than",
        "nearer the camera than",
        "nearer the viewer than",
        "less far away than",
        "less distant than",
    ),
    "farther than": (
        "behind",
        "beyond",
        "in back of",
        "at the back of",
        "more distant than",
        "farther than",
        "further than",
        "farther away than",
        "further away than",
        "farther back than",
        "further back than",
        "farther from the camera than",
        "further from the camera than",
        "farther away from the camera than",
        "further away from the camera than",
        "farther from the viewer than",
        "further from the viewer than",
    ),
}
SIDEWAYS: dict[str, Relation] = {
    "to its left": "left of",
    "on its left": "left of",
    "to their left": "left of",
    "to its right": "right of",
    "on its right": "right of",
    "to their right": "right of",
}
"""Relations that hold the thing they relate to, as a pronoun."""
_ABSENCES = ("no sign of", "no signs of")
_HUES = {"coloured", "colored", "painted", "tinted", "hued", "toned"}


@dataclass(frozen=True)
class Item:
    """Words start..end of a sentence, and what they mean.

    Attributes:
        value: the vocabulary's name: of the category, the colour, the attribute's value; or the relation.
        group: an attribute's kind; `it` for a relation that holds its pronoun.
        plural: of a category.
        further: more colours of the same word: `red-and-white`.
        shorter: what the words would mean if the meaning does not fit: a category for a colour of the same name, an
            attribute that a relation begins with.
    """

    kind: Kind
    value: str
    start: int
    end: int
    group: str = ""
    plural: bool = False
    further: tuple[str, ...] = ()
    shorter: "Item | None" = None


class Lexicon:
    """Finds items, the longest phrase first."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._phrases: dict[str, list[tuple[tuple[str, ...], Item]]] = {}
        self._colours: dict[str, str] = {}
        for phrase, item in _entries(vocabulary):
            words = tuple(phrase.split())
            self._phrases.setdefault(words[0], []).append((words, item))
            if item.kind == "colour" and len(words) == 1:
                self._colours[phrase] = item.value
        for known in self._phrases.values():
            known.sort(key=lambda one: (-len(one[0]), _RANK[one[1].kind]))

    def items(self, sentence: Sequence[str]) -> list[Item]:
        """Items in order, none over another."""
        found: list[Item] = []
        i = 0
        while i < len(sentence):
            item = self._at(sentence, i)
            if item is not None:
                found.append(item)
            i = item.end if item else i + 1
        return found

    def _at(self, sentence: Sequence[str], i: int) -> Item | None:
        matches = [
            replace(item, start=i, end=i + len(words))
            for words, item in self._phrases.get(sentence[i], [])
            if tuple(sentence[i : i + len(words)]) == words
        ]
        if matches:
            best, *others = matches
            return replace(best, shorter=_other_meaning(best, others))
        colours = self._in_compound(sentence[i])
        return Item("colour", colours[0], i, i + 1, further=tuple(colours[1:])) if colours else None

    def _in_compound(self, word: str) -> list[str]:
        """Colours of `dark-red`, `red-painted`, `red-and-white`; none of `ball-shaped`."""
        parts = [part for part in word.replace("‐", "-").replace("‑", "-").split("-") if part != "and"]
        if len(parts) < 2:
            return []
        named = [self._colours.get(part) for part in parts]
        colours = [colour for colour in named if colour]
        if len(colours) == len(parts) or (named[0] and parts[-1] in _HUES):
            return colours
        return [named[-1]] if named[-1] else []


_RANK = {"ignored": 0, "colour": 1, "category": 2, "relation": 3, "attribute": 4}


def _entries(vocabulary: Vocabulary) -> Iterator[tuple[str, Item]]:
    for category, others in vocabulary.categories.items():
        for phrase in (category, *others):
            single, _, given = phrase.partition("/")
            many = {given} if given else plurals(single)
            yield single, Item("category", category.partition("/")[0], 0, 0)
            for plural in many - {single}:
                yield plural, Item("category", category.partition("/")[0], 0, 0, plural=True)
    for colour, others in vocabulary.colours.items():
        for phrase in (colour, *others):
            yield phrase, Item("colour", colour, 0, 0)
    for kind, values in vocabulary.attributes.items():
        for value, others in values.items():
            for phrase in (value, *others):
                yield phrase, Item("attribute", value, 0, 0, group=kind)
    for relation, phrases in RELATIONS.items():
        for phrase in phrases:
            yield phrase, Item("relation", relation, 0, 0)
    for phrase, relation in SIDEWAYS.items():
        yield phrase, Item("relation", relation, 0, 0, group="it")
    for phrase in (*vocabulary.ignored, *_ABSENCES):
        yield phrase, Item("ignored", phrase, 0, 0)


def _other_meaning(best: Item, others: Iterable[Item]) -> Item | None:
    """A colour's other meaning as a category; an attribute that a relation begins with."""
    for other in others:
        if (best.kind, other.kind) == ("colour", "category") and other.end == best.end:
            return other
        if (best.kind, other.kind) == ("relation", "attribute"):
            return other
    return None
