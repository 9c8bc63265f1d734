"""The table of things: names of one thing, what is a kind of what, what is easily taken for what (nouns.yaml)."""

from collections.abc import Iterable
from functools import cache
from importlib import resources
from itertools import permutations

import yaml

from fusion.evaluate.vocabulary import Vocabulary
from fusion.evaluate.words import plurals


class Nouns:
    """The table, read.

    Attributes:
        vocabulary: by which captions are read.
        categories: of things.
        unsure: those that are never said to be unseen.
    """

    def __init__(self, text: str) -> None:
        table = yaml.safe_load(text)
        self.unsure = frozenset(table["unsure"])
        self.vocabulary = Vocabulary(
            **{name: table[name] for name in ("categories", "colours", "attributes", "ignored")}
        )
        self._names = dict(_names(self.vocabulary.categories))
        self.categories = frozenset(self._names.values())
        kinds: dict[str, set[str]] = {name: set(below) for name, below in table["kinds"].items()}
        self._above = {name: frozenset(_above(name, kinds)) for name in self.categories}
        self._alike: dict[str, set[str]] = {}
        for group in table["alike"]:
            for one, other in permutations(group, 2):
                self._alike.setdefault(one, set()).add(other)
        named = {*kinds, *self._alike, *self.unsure}.union(*kinds.values())
        if strange := named - self.categories:
            raise ValueError(f"nouns.yaml: {', '.join(sorted(strange))}: named, and no category")

    def category(self, label: str) -> str:
        """The category that a label of an expert means: of all of its words, or of as many of the last ones as are
        known (`office chair` is a chair); a label that the table does not know is a category of its own."""
        words = label.casefold().replace("_", " ").split()
        for start in range(len(words)):
            if found := self._names.get(" ".join(words[start:])):
                return found
        return " ".join(words)

    def is_kind(self, one: str, other: str) -> bool:
        """Whether every `one` is an `other`."""
        return one == other or other in self._above.get(one, ())

    def may_be(self, one: str, other: str) -> bool:
        """Whether what is called `one` may be called `other`, too: one is a kind of the other, or they look alike."""
        return self.is_kind(one, other) or self.is_kind(other, one) or other in self._alike.get(one, ())


@cache
def nouns() -> Nouns:
    """The table of the package."""
    return Nouns((resources.files("fusion.checks") / "nouns.yaml").read_text(encoding="utf-8"))


def _names(categories: dict[str, list[str]]) -> Iterable[tuple[str, str]]:
    for category, others in categories.items():
        for phrase in (category, *others):
            single, _, given = phrase.partition("/")
            for name in {single, *({given} if given else plurals(single))}:
                yield name, category.partition("/")[0]


def _above(name: str, kinds: dict[str, set[str]]) -> set[str]:
    """Everything that `name` is a kind of."""
    direct = {above for above, below in kinds.items() if name in below}
    return direct.union(*(_above(above, kinds) for above in direct))
