"""What a caption says is in the picture: objects with colours and attributes, how they lie to each other, text."""

from dataclasses import dataclass, field

from fusion.evaluate.lexicon import Relation


@dataclass(frozen=True)
class ClaimedObject:
    """One thing.

    Attributes:
        colours: all that are said of it; of several, one is enough.
        attributes: kind to value.
    """

    category: str
    colours: frozenset[str] = frozenset()
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClaimedRelation:
    """`relation` holds between one of the objects `subject` and one of `object`, numbers in `Claims.objects`."""

    subject: tuple[int, ...]
    relation: Relation
    object: tuple[int, ...]


@dataclass(frozen=True)
class Claims:
    """Everything that one caption says in words of the vocabulary.

    Attributes:
        objects: in the order of the text. A plural without a number stands for two.
        more: numbers of objects that stand for a plural without a number, so that there may be more of them.
        denied: categories that are said not to be there.
        quotes: what it has in quotation marks.
    """

    objects: tuple[ClaimedObject, ...] = ()
    more: frozenset[int] = frozenset()
    relations: tuple[ClaimedRelation, ...] = ()
    denied: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()
