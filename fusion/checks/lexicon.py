"""The words by which the checks read captions: the evaluation's, with above and below, and stricter in doubt."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fusion.evaluate.grammar import CONJUNCTIONS, COPULAS, DEFINITE, DEGREES, INDEFINITE, NUMBERS, OTHER, STOPS
from fusion.evaluate.lexicon import Item, Lexicon
from fusion.evaluate.vocabulary import Vocabulary
from fusion.evaluate.words import plurals

VERTICAL = {"above": ("above", "on top of"), "below": ("below", "underneath", "beneath")}
IMAGE = {"image", "picture", "photo", "photograph", "frame", "scene", "shot", "view", "composition", "canvas"}
_DETERMINERS = INDEFINITE | DEFINITE | set(NUMBERS) | OTHER | {"some", "several", "many", "few"}
_AFTER_PLACES = STOPS | DEGREES | CONJUNCTIONS | COPULAS | _DETERMINERS
_AFTER_NOUNS = _AFTER_PLACES | {"visible", "left", "right", "here", "alone", "next", "too", "each", "then", "close"}


class CheckLexicon(Lexicon):
    """Finds items where they are sure to mean what they say.

    A thing's word right before a strange word may only describe it (`a dog collar`, `the tower crane`): it names none.
    `on the left of the road` and `on the left leg` place nothing in the image, `looks to the left` neither.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        for relation, phrases in VERTICAL.items():
            for phrase in phrases:
                self._add(phrase, Item("relation", relation, 0, 0))

    def with_labels(self, labels: Iterable[str]) -> "CheckLexicon":
        """The same with categories that it does not know, each of one name."""
        made = copy.copy(self)
        made._phrases = dict(self._phrases)
        for label in sorted(set(labels)):
            forms = plurals(label) - {label}
            if not forms & STOPS and label not in STOPS:
                made._add(label, Item("category", label, 0, 0))
                for form in forms:
                    made._add(form, Item("category", label, 0, 0, plural=True))
        return made

    def items(self, sentence: Sequence[str]) -> list[Item]:
        found = super().items(sentence)
        starts = {item.start for item in found}
        return [sure for item in found if (sure := _sure(sentence, item, starts)) is not None]

    def _add(self, phrase: str, item: Item) -> None:
        words = tuple(phrase.split())
        known = [*self._phrases.get(words[0], []), (words, item)]
        self._phrases[words[0]] = sorted(known, key=lambda one: -len(one[0]))


def _sure(sentence: Sequence[str], item: Item, starts: set[int]) -> Item | None:
    after = sentence[item.end] if item.end < len(sentence) else ""
    if item.kind == "category":
        describes = not item.plural and item.end not in starts and _is_strange(after, _AFTER_NOUNS)
        return None if describes else item
    if item.kind == "attribute" and item.end - item.start > 1:
        return item if _places(sentence, item, starts) else None
    if item.kind == "relation" and item.shorter and not _places(sentence, item.shorter, starts):
        return replace(item, shorter=None)
    return item


def _places(sentence: Sequence[str], item: Item, starts: set[int]) -> bool:
    """Whether a phrase such as `on the left` says where in the image something is."""
    words = sentence[item.start : item.end]
    if words[0] == "to" and item.start and sentence[item.start - 1] not in (",", "and", "while"):
        return False
    after = sentence[item.end : item.end + 3]
    if after[:1] == ["of"]:
        return bool(set(after[1:]) & IMAGE)
    return not after or item.end in starts or not _is_strange(after[0], _AFTER_PLACES)


def _is_strange(word: str, known: set[str]) -> bool:
    return word.isalpha() and word not in known and not word.endswith(("s", "ed", "ing", "ly"))
