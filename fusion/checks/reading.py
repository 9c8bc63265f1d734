"""What a caption says of things, read once for all checks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from fusion.checks.lexicon import IMAGE, CheckLexicon
from fusion.checks.nouns import nouns
from fusion.evaluate.claims import Claims
from fusion.evaluate.grammar import DEFINITE, NUMBERS
from fusion.evaluate.lexicon import Item
from fusion.evaluate.mentions import mentions, settle
from fusion.evaluate.story import Story
from fusion.evaluate.words import quotes, sentences

_SHOWING = {"shows", "show", "features", "contains", "includes", "depicts"}
_TAIL = {
    ",",
    "and",
    "a",
    "an",
    "one",
    "in",
    "view",
    "the",
    "total",
    "all",
    "visible",
    "here",
    "see",
    "be",
    "can",
} | IMAGE


@dataclass(frozen=True)
class Number:
    """`number` things of a category.

    Attributes:
        all: the sentence says that so many are there; otherwise there may be more of them elsewhere.
    """

    category: str
    number: int
    all: bool


@dataclass(frozen=True)
class Reading:
    """What one caption says."""

    claims: Claims = field(default_factory=Claims)
    numbers: tuple[Number, ...] = ()


def read(caption: str, labels: Iterable[str]) -> Reading:
    """Things by the table of nouns and by further labels; any text can be read.

    Args:
        labels: categories that the table may not know (`Nouns.category`).
    """
    strange = [one for one in labels if one not in nouns().categories and one.replace(" ", "").isalpha()]
    lexicon = _base().with_labels(strange) if strange else _base()
    story, numbers = Story(), list[Number]()
    for sentence in sentences(caption):
        items = settle(sentence, lexicon.items(sentence))
        numbers += _numbers(sentence, items)
        story.tell(sentence, items)
    return Reading(story.claims(quotes(caption)), tuple(numbers))


@cache
def _base() -> CheckLexicon:
    return CheckLexicon(nouns().vocabulary)


def _numbers(sentence: Sequence[str], items: Sequence[Item]) -> Iterator[Number]:
    if not any(word in NUMBERS or word.isdigit() for word in sentence):
        return
    found = mentions(sentence, items)
    inside = {place for one in found for place in range(one.start, one.end)}
    opens = sentence[0] == "there" or bool(_SHOWING & set(sentence[: found[0].start] if found else ()))
    for one in found:
        before = sentence[: one.start]
        if one.category is None or not one.number or one.denied or one.compared:
            continue
        if one.determiner == "the" or (set(before[-2:]) & DEFINITE) or before[-1:] in (["of"], ["than"]):
            continue
        plain = not one.colours and not one.attributes and one.end - one.start == 1 + len(one.category.split())
        rest = {sentence[place] for place in range(one.end, len(sentence)) if place not in inside}
        yield Number(one.category, one.number, opens and plain and not one.governed and rest <= _TAIL)
