"""Noun phrases of a sentence that name a category of the vocabulary, with what their own words say of it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fusion.evaluate.grammar import (
    ABSENCES,
    COPULAS,
    DEFINITE,
    DEGREES,
    HAVING,
    INDEFINITE,
    LIKENESSES,
    LIMITS,
    NEGATIVE,
    NUMBERS,
    OTHER,
    PREPOSITIONS,
    QUANTITIES,
    SOME,
    STOPS,
)
from fusion.evaluate.lexicon import Item

Determiner = Literal["", "a", "the", "no"]
_MOST_STRANGERS = 3
"""Words of no vocabulary that may stand among a noun's adjectives."""


@dataclass
class Mention:
    """Words start..end, determiner and adjectives included.

    Attributes:
        category: None for `one` and `ones`, which stand for a noun before.
        colours: in the order of the text.
        attributes: (kind, value) that stand before the noun.
        number: that is stated; None where none is.
        plural: whether the noun is.
        other: another one than before is meant.
        governed: it follows a preposition or a relation, so that it is not what the sentence is about.
        denied: the sentence says that it is not there.
        compared: it is only compared with, or shown by another thing (`a statue of a lion`).
    """

    start: int
    end: int
    category: str | None
    colours: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    number: int | None = None
    plural: bool = False
    determiner: Determiner = ""
    other: bool = False
    governed: bool = False
    denied: bool = False
    compared: bool = False


def settle(sentence: Sequence[str], items: Sequence[Item]) -> list[Item]:
    """The items, each with one meaning: a word that is a colour and a category is the colour before a noun and after a
    verb; a noun right before a noun (`tree house`) only describes it and goes."""
    out: list[Item] = []
    for item in reversed(items):
        following = out[-1] if out and out[-1].start <= item.end + 1 else None
        if item.kind == "colour" and item.shorter and not _is_colour(sentence, item, following):
            item = item.shorter
        if item.kind == "category" and following and following.kind == "category" and following.start == item.end:
            continue
        out.append(item)
    return out[::-1]


def _is_colour(sentence: Sequence[str], item: Item, following: Item | None) -> bool:
    before = sentence[item.start - 1] if item.start else ""
    if following and following.kind in ("colour", "category"):
        between = sentence[item.end : following.start]
        return not between or between[0] not in STOPS or between[0] in ("and", ",")
    if item.end < len(sentence) and sentence[item.end] in ("one", "ones"):
        return True
    return before in COPULAS | DEGREES | {"in"}


def mentions(sentence: Sequence[str], items: Sequence[Item]) -> list[Mention]:
    """Mentions in order, from settled items."""
    at = {place: item for item in items for place in range(item.start, item.end)}
    nouns: list[tuple[int, int, Item | None]] = [
        (item.start, item.end, item) for item in items if item.kind == "category"
    ]
    nouns += [
        (i, i + 1, None) for i, word in enumerate(sentence) if word in ("one", "ones") and _stands_for(sentence, at, i)
    ]
    found = [_mention(sentence, at, start, end, item) for start, end, item in sorted(nouns, key=lambda noun: noun[0])]
    _deny_lists(sentence, found)
    return found


def _stands_for(sentence: Sequence[str], at: dict[int, Item], i: int) -> bool:
    """Whether `one` is a noun: `the red one`, `another one`, `the taller one`."""
    if i == 0 or (i + 1 < len(sentence) and sentence[i + 1] == "of"):
        return False
    before = sentence[i - 1]
    if i - 1 in at:
        return at[i - 1].kind in ("colour", "attribute")
    return before in OTHER | DEFINITE | {"each", "every"} or (
        i >= 2 and sentence[i - 2] in DEFINITE and before not in STOPS
    )


def _mention(sentence: Sequence[str], at: dict[int, Item], start: int, end: int, item: Item | None) -> Mention:
    plural = item.plural if item else sentence[start] == "ones"
    one = Mention(start, end, item.value if item else None, plural=plural)
    _take_before(sentence, at, one)
    one.colours.reverse()
    before = _words_before(sentence, at, one.start)
    governor = at.get(one.start - 1)
    one.governed = bool(governor and governor.kind == "relation") or (bool(before) and before[-1] in PREPOSITIONS)
    one.compared = one.determiner != "the" and (
        any(_ends_with(before, words) for words in LIKENESSES)
        or (len(before) >= 3 and before[-1] == before[-3] == "as")
    )
    one.denied = one.determiner == "no" or _absent(before, one)
    return one


def _take_before(sentence: Sequence[str], at: dict[int, Item], one: Mention) -> None:
    """Walk from the noun to the left over its adjectives to its number and determiner.

    A comma before a strange word (`a small, red, round ball`) may also be the end of something else (`the sky is blue,
    tall trees ...`): what is behind it counts only if a determiner is, too.
    """
    i, strangers = one.start - 1, 0
    doubtful: Mention | None = None
    while i >= 0:
        word, item = sentence[i], at.get(i)
        if item is not None:
            if item.kind == "colour":
                one.colours += [item.value, *item.further]
            elif item.kind == "attribute" and not _is_phrase(item):
                one.attributes.append((item.group, item.value))
            else:
                break
            one.start = i = item.start
            i -= 1
        elif quantity := _quantity(sentence, i):
            words, number = quantity
            one.start = i - len(words) + 1
            _count(one, number)
            return
        elif word in NUMBERS or word.isdigit():
            number = int(word) if word.isdigit() else NUMBERS[word]
            one.start = i
            _count(one, number)
            if number == 0 and word != "single":
                one.determiner = "no"
            _determine(sentence, i - 1, one)
            return
        elif word in NEGATIVE | INDEFINITE | DEFINITE | SOME:
            _determine(sentence, i, one)
            return
        elif word in OTHER:
            one.other = True
            one.start = i
            i -= 1
        elif word in (",", "and", "or") and _joins_adjectives(at, i):
            i -= 1
        elif word == "," and i - 1 in at and i + 1 not in at:
            doubtful = doubtful or copy.deepcopy(one)
            i -= 1
        elif word in STOPS or strangers == _MOST_STRANGERS:
            break
        else:
            strangers += 1
            i -= 1
    if doubtful is not None:
        vars(one).update(vars(doubtful))


def _determine(sentence: Sequence[str], i: int, one: Mention) -> None:
    """Take the determiner at place i, if there is one, and one before it (`all the`, `no other`)."""
    if i < 0:
        return
    word = sentence[i]
    if word in NEGATIVE:
        if any(_ends_with(sentence[: i + len(words)], words) for words in LIMITS if words[0] == word):
            return
        one.determiner, one.start = "no", i
    elif word in OTHER:
        one.other, one.start = True, i
        if word in INDEFINITE:
            one.determiner = "a"
        else:
            _determine(sentence, i - 1, one)
    elif word in INDEFINITE:
        # `a` before a plural is another noun's.
        if not one.plural or word == "any":
            one.determiner, one.start = "a", i
    elif word in DEFINITE:
        one.determiner, one.start = "the", i
    elif word in SOME:
        one.start = i
        _determine(sentence, i - 1, one)


def _count(one: Mention, number: int | None) -> None:
    one.number = number
    one.determiner = one.determiner or "a"
    one.plural = one.plural or number is None or number > 1


def _quantity(sentence: Sequence[str], i: int) -> tuple[tuple[str, ...], int | None] | None:
    """A phrase such as `a pair of` that ends at place i."""
    for words, number in QUANTITIES.items():
        if i + 1 >= len(words) and tuple(sentence[i + 1 - len(words) : i + 1]) == words:
            return words, number
    return None


def _is_phrase(item: Item) -> bool:
    """Whether an attribute is said in several words, as `on the left`: those stand after a noun."""
    return item.end - item.start > 1


def _joins_adjectives(at: dict[int, Item], i: int) -> bool:
    """Whether a comma, `and` or `or` stands between two adjectives: `small, red`, `red and white`, `red, and blue`."""
    sides = (at.get(i - 1), at.get(i + 1))
    return all(one is not None and one.kind in ("colour", "attribute") for one in sides)


def _words_before(sentence: Sequence[str], at: dict[int, Item], start: int) -> list[str]:
    """The words before a place, without those of degree right before it."""
    i = start
    while i > 0 and sentence[i - 1] in DEGREES and i - 1 not in at:
        i -= 1
    return list(sentence[:i])


def _ends_with(words: Sequence[str], ending: tuple[str, ...]) -> bool:
    return len(words) >= len(ending) and tuple(words[len(words) - len(ending) :]) == ending


def _absent(before: Sequence[str], one: Mention) -> bool:
    """Whether the words before a noun phrase say that there is none of it."""
    if any(_ends_with(before, words) for words in ABSENCES):
        return True
    if one.determiner == "the":
        return False
    for i in range(len(before) - 1, max(-1, len(before) - 6), -1):
        if before[i] in ("not", "never"):
            return before[i + 1 : i + 2] != ["only"]
        if before[i] not in HAVING:
            return False
    return False


def _deny_lists(sentence: Sequence[str], found: Sequence[Mention]) -> None:
    """A denial goes on over a list: `no balls or crates`, `without a ball, a crate or a tree`."""
    for i, first in enumerate(found):
        if not first.denied:
            continue
        chain = [first]
        joins: list[str] = []
        for following in found[i + 1 :]:
            between = sentence[chain[-1].end : following.start]
            if not between or not set(between) <= {",", "or", "nor", "and"}:
                break
            chain.append(following)
            joins += between
        listed = "or" in joins or "nor" in joins
        for following in chain[1:]:
            if listed or (joins and "and" in joins and following.determiner == ""):
                following.denied = True
