"""The things of a caption, sentence after sentence: which noun phrase brings one, and which means one of before."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fusion.evaluate.claims import ClaimedObject, ClaimedRelation, Claims
from fusion.evaluate.grammar import (
    CLAUSE_STARTS,
    COPULAS,
    CORNERS,
    DEGREES,
    NUMBERS,
    OTHER,
    PARTICIPLES,
    PRONOUNS,
    RELATIVES,
    STOPS,
    VERBS,
)
from fusion.evaluate.lexicon import Item, Relation
from fusion.evaluate.mentions import Mention, mentions

_NAMELY = (":", "including", "namely")


@dataclass(eq=False)
class _Thing:
    """One object while the text goes on.

    Attributes:
        open: one of a plural without a number.
        plain: named without colour, so that a later `a red ball` may tell more of it.
        sentence: number of the sentence that brought it.
    """

    category: str
    sentence: int
    colours: set[str] = field(default_factory=set)
    attributes: dict[str, str] = field(default_factory=dict)
    open: bool = False
    told: bool = False


@dataclass(eq=False)
class _Said:
    """A mention and the things that it means."""

    mention: Mention
    things: list[_Thing]


class Story:
    """The things of a text so far."""

    def __init__(self) -> None:
        self._things: list[_Thing] = []
        self._relations: list[tuple[list[_Thing], Relation, list[_Thing]]] = []
        self._denied: list[str] = []
        self._sentence = -1
        self._group: list[_Thing] = []
        """Of the last plural."""
        self._subject: list[_Thing] = []
        """What the last sentence was about."""
        self._last: list[_Thing] = []
        self._refused = -1
        """Where the last colour ended that something is said not to have."""

    def claims(self, quoted: Sequence[str]) -> Claims:
        numbers = {id(thing): i for i, thing in enumerate(self._things)}

        def places(things: Iterable[_Thing]) -> tuple[int, ...]:
            return tuple(numbers[id(thing)] for thing in things)

        return Claims(
            tuple(ClaimedObject(t.category, frozenset(t.colours), dict(t.attributes)) for t in self._things),
            frozenset(places(t for t in self._things if t.open)),
            tuple(ClaimedRelation(places(a), relation, places(b)) for a, relation, b in self._relations if a and b),
            tuple(self._denied),
            tuple(quoted),
        )

    def tell(self, sentence: Sequence[str], items: Sequence[Item]) -> None:
        """Take in one sentence."""
        self._sentence += 1
        self._refused = -1
        found = mentions(sentence, items)
        inside = {place for m in found for place in range(m.start, m.end)}
        runs = _colour_runs(sentence, [i for i in items if i.kind == "colour" and i.start not in inside])
        said: list[_Said] = []
        events: list[Mention | _Run] = [*found, *runs]
        for event in sorted(events, key=lambda one: one.start):
            if isinstance(event, Mention):
                self._take(sentence, event, said)
            else:
                self._colour(sentence, event, said, found)
        related: dict[int, _Said] = {}
        for item in items:
            if item.kind == "relation" and not self._relate(sentence, item, said, related) and item.shorter:
                self._attribute(sentence, item.shorter, said)
            elif item.kind == "attribute" and item.start not in inside:
                self._attribute(sentence, item, said)
        about = [one for one in said if one.things and not one.mention.governed] or [one for one in said if one.things]
        if about:
            self._subject = about[0].things

    def _take(self, sentence: Sequence[str], mention: Mention, said: list[_Said]) -> None:
        if mention.category is None:
            mention.category = self._last[-1].category if self._last else None
            if mention.category is None:
                return
        if mention.denied:
            self._denied.append(mention.category)
            return
        if mention.compared:
            return
        groups = [one.mention.end for one in said if len(one.things) > 1 and one.mention.category == mention.category]
        listed = bool(groups) and any(word in _NAMELY for word in sentence[groups[0] : mention.start])
        things = self._meant(mention, listed) if listed or not mention.other else []
        if mention.other and not things and mention.determiner == "the":
            things = self._other_one(mention)
        wanted = mention.number or (2 if mention.plural else 1)
        if not things or (mention.determiner != "the" and len(things) < wanted):
            things = [*things, *self._new(mention, wanted - len(things))]
        self._describe(things, mention)
        if len(things) > 1:
            self._group = things
        self._last = things
        said.append(_Said(mention, things))

    def _meant(self, mention: Mention, listed: bool = False) -> list[_Thing]:
        """Things of before that a noun phrase means; empty where it brings new ones.

        Args:
            listed: it stands in a list that tells more of a plural of the same sentence.
        """
        alike = [t for t in self._things if t.category == mention.category]
        if mention.determiner == "the":
            return self._definite(mention, alike)
        # `There are two balls. A red ball lies …`: what was named without a colour may be told more of.
        plain = [t for t in alike if not t.colours and not t.told and (listed or t.sentence < self._sentence)]
        if mention.colours and plain:
            return plain[: mention.number or (2 if mention.plural else 1)]
        if mention.number == 1 and not mention.colours:
            ones = [t for t in self._group if t.category == mention.category and not t.told]
            return ones[:1]
        return []

    def _definite(self, mention: Mention, alike: list[_Thing]) -> list[_Thing]:
        wanted = set(mention.colours)
        fitting = [t for t in alike if t.colours & wanted] if wanted else alike
        if not fitting and wanted:
            fitting = [t for t in alike if not t.colours]
        told = dict(mention.attributes)
        closer = [t for t in fitting if told and all(t.attributes.get(kind) == value for kind, value in told.items())]
        fitting = closer or [
            t for t in fitting if all(t.attributes.get(kind, value) == value for kind, value in told.items())
        ]
        if mention.plural:
            return fitting[-mention.number :] if mention.number else fitting
        return fitting[-1:]

    def _other_one(self, mention: Mention) -> list[_Thing]:
        """`the other ball`, `the second ball`: one that the last mention did not mean."""
        wanted = set(mention.colours)
        rest = [
            t
            for t in self._things
            if t.category == mention.category
            and t not in self._last
            and (not wanted or not t.colours or t.colours & wanted)
        ]
        untold = [t for t in rest if not t.told]
        return (untold or rest)[:1]

    def _new(self, mention: Mention, count: int) -> list[_Thing]:
        assert mention.category is not None
        is_open = mention.plural and mention.number is None
        if is_open and len(mention.colours) > 1:
            count = len(mention.colours)
        made = [_Thing(mention.category, self._sentence, open=is_open) for _ in range(count)]
        self._things += made
        return made

    def _describe(self, things: list[_Thing], mention: Mention) -> None:
        """Say of things what a noun phrase says: `red and blue balls` are one of each."""
        colours = list(dict.fromkeys(mention.colours))
        apart = mention.plural and len(colours) > 1 and len(things) == len(colours)
        for i, thing in enumerate(things):
            if not thing.colours:
                thing.colours |= {colours[i]} if apart else set(colours)
            for kind, value in mention.attributes:
                thing.attributes.setdefault(kind, value)
            if mention.determiner != "the" and (mention.colours or not mention.plural):
                thing.told = bool(mention.colours) or thing.told

    def _colour(self, sentence: Sequence[str], run: "_Run", said: list[_Said], found: Sequence[Mention]) -> None:
        """A colour that is no noun phrase's own: `is red`, `one red and one blue`, `a red and a blue ball`."""
        after = sentence[run.end] if run.end < len(sentence) else ""
        before = sentence[run.start - 1] if run.start else ""
        following = next((m for m in found if m.start >= run.end), None)
        number = NUMBERS.get(before) or (int(before) if before.isdigit() else 0)
        starts = bool(number) or before in {"a", "an", "the"} | OTHER
        if (
            starts
            and following
            and after in ("and", "or", ",", "&")
            and following.start <= run.end + 2
            and following.colours
        ):
            category = following.category or (self._last[-1].category if self._last else None)
            if category and not following.denied:
                made = Mention(run.start - 1, run.end, category, list(run.colours), number=number or 1)
                made.determiner = "the" if before == "the" else "a"
                made.plural = made.number is not None and made.number > 1
                things = self._meant(made) or self._new(made, made.number or 1)
                self._describe(things, made)
                self._last = things
                said.append(_Said(made, things))
            return
        if after and after not in STOPS and after not in DEGREES and after not in ("too", "as", "respectively"):
            return  # of a noun that the vocabulary does not have: `has white doors`
        if starts and before != "a" and before != "an":
            self._fill(run.colours, number or 1)
            return
        place = run.start
        while place > 0 and sentence[place - 1] in DEGREES:
            place -= 1
        if place and sentence[place - 1] == "not":
            self._refused = run.end
            return
        if before == "but" and run.start - 1 == self._refused:
            place = next(i for i in range(run.start - 1, -1, -1) if sentence[i] == "not")
        verb = place
        while verb > 0 and sentence[verb - 1] in COPULAS | DEGREES | {"in", "has", "have", "been", "all"}:
            verb -= 1
        if verb == place and not (place and sentence[place - 1] in (",", "—", "–", "(")):
            return
        meant = self._said_of(sentence, verb if verb != place else place - 1, said)
        if meant is None:
            subject = sentence[verb - 1] if verb else ""
            count = NUMBERS.get(subject, 1 if subject in OTHER else 0)
            if count:
                self._fill(run.colours, count)
            return
        for thing in meant:
            if not thing.colours:
                thing.colours |= set(run.colours)
                thing.told = True

    def _said_of(self, sentence: Sequence[str], place: int, said: list[_Said]) -> list[_Thing] | None:
        """What a verb at a place says something of; None where that is no thing that was named."""
        i = place
        relative = i > 0 and sentence[i - 1] in RELATIVES
        if relative:
            i -= 1
        if i > 0 and sentence[i - 1] == ",":
            i -= 1
        if i > 0 and sentence[i - 1] in PRONOUNS and not relative:
            return self._pronoun(sentence[i - 1], said, i - 1)
        if i > 0 and (sentence[i - 1] in NUMBERS or sentence[i - 1] in OTHER):
            return None
        before = [one for one in said if one.mention.end <= i]
        if not before:
            return []
        nearest = before[-1]
        if nearest.mention.end == i and (relative or sentence[i] in PARTICIPLES):
            return nearest.things
        if nearest.mention.end == i and not nearest.mention.governed:
            return [*self._joined(sentence, before), *nearest.things]
        free = [one for one in before if not one.mention.governed]
        return (free or before)[-1].things

    def _joined(self, sentence: Sequence[str], before: list[_Said]) -> list[_Thing]:
        """Things before the last that share its verb: `a ball and a crate are red`."""
        things: list[_Thing] = []
        for one, following in zip(before[-2::-1], before[:0:-1], strict=True):
            between = set(sentence[one.mention.end : following.mention.start])
            last_verb = sentence[before[-1].mention.end : before[-1].mention.end + 1]
            if not between or not between <= {",", "and"} or last_verb != ["are"]:
                break
            things += one.things
        return things

    def _pronoun(self, word: str, said: list[_Said], place: int) -> list[_Thing]:
        """What `it` or `they` means: what the sentence, or the one before it, is about."""
        before = [one for one in said if one.mention.end <= place and one.things]
        free = [one for one in before if not one.mention.governed]
        if free or before:
            return (free or before)[0].things
        if word in ("they", "them", "these") and len(self._subject) < 2 and self._group:
            return self._group
        return self._subject

    def _fill(self, colours: Sequence[str], count: int) -> None:
        """`one red and two blue`: colours of so many of the last plural's things."""
        things = self._group or self._last
        blank = [t for t in things if not t.colours]
        if len(blank) < count and things and things[-1].open:
            more = [_Thing(things[-1].category, self._sentence, open=True) for _ in range(count - len(blank))]
            self._things += more
            self._group = [*things, *more]
            blank += more
        for thing in blank[:count]:
            thing.colours |= set(colours)
            thing.told = True

    def _attribute(self, sentence: Sequence[str], item: Item, said: list[_Said]) -> None:
        """An attribute behind its noun, or before it at the head of a clause: `on the left is a ball`."""
        named = [one for one in said if one.things]
        start = _clause_start(sentence, item.start)
        before = [one for one in named if start <= one.mention.start and one.mention.end <= item.start]
        after = [one for one in named if one.mention.start >= item.end]
        free = [one for one in before if not one.mention.governed]
        if after and _heads(sentence, item, after[0].mention.start):
            chosen = after[0]
        elif before:
            chosen = (free or before)[-1]
        elif after and _clause_start(sentence, after[0].mention.start) <= item.start:
            chosen = after[0]
        else:
            earlier = [one for one in named if one.mention.end <= item.start]
            chosen_things = earlier[-1].things if earlier else self._pronoun_subject(sentence, item)
            _give(chosen_things, item)
            return
        _give(chosen.things, item)

    def _pronoun_subject(self, sentence: Sequence[str], item: Item) -> list[_Thing]:
        return self._subject if set(sentence[: item.start]) & PRONOUNS else []

    def _relate(self, sentence: Sequence[str], item: Item, said: list[_Said], related: dict[int, _Said]) -> bool:
        """Note a relation; False where it has no object, so that its words mean something else.

        Args:
            related: by the end of each relation's object, that relation's subject.
        """
        relation: Relation = item.value  # type: ignore[assignment]
        named = [one for one in said if one.things]
        before = [one for one in named if one.mention.end <= item.start]
        after = [one for one in named if one.mention.start >= item.end]
        if item.start and sentence[item.start - 1] == "not":
            return True
        if item.group == "it":
            heads = not before or _clause_start(sentence, item.start) == item.start
            subject = after[0] if heads and after else before[-1] if len(before) > 1 else None
            if subject is None:
                return False
            other = before[0].things if before and before[0] is not subject else self._subject
            self._note(subject.things, relation, other)
            return True
        pronoun = item.end < len(sentence) and sentence[item.end] in PRONOUNS
        target = next((one for one in after if one.mention.start == item.end), None)
        if not pronoun and target is None:
            return False
        end = target.mention.end if target else item.end + 1
        rest = [one for one in after if one.mention.start >= end]
        subject = self._subject_of(sentence, item, end, before, rest, related)
        if subject is None:
            return True
        if target is not None:
            things = target.things
        else:
            others = [one for one in before if one is not subject]
            things = others[-1].things if others else self._subject
        related[end] = subject
        self._note(subject.things, relation, things)
        return True

    def _subject_of(
        self,
        sentence: Sequence[str],
        item: Item,
        end: int,
        before: list[_Said],
        rest: list[_Said],
        related: dict[int, _Said],
    ) -> _Said | None:
        """Which thing stands in the relation at `item`, whose object ends at `end`."""
        opens = item.start == 0 or sentence[item.start - 1] in {",", "and", "(", *CLAUSE_STARTS}
        if rest and opens:
            between = sentence[end : rest[0].mention.start]
            verbs = [word for word in between if word in STOPS and word not in (",", "and", "or")]
            if (not before and between) or (verbs and "," not in between[:1]) or (item.start == 0 and between):
                return rest[0]
        if not before:
            return None
        nearest = before[-1]
        gap = sentence[nearest.mention.end : item.start]
        if nearest.mention.end in related and gap and gap[0] in (",", "and"):
            return related[nearest.mention.end]
        if nearest.mention.governed and any(word in COPULAS or word in STOPS - {","} for word in gap):
            return next((one for one in before[::-1] if not one.mention.governed), nearest)
        return nearest

    def _note(self, subject: list[_Thing], relation: Relation, other: list[_Thing]) -> None:
        if subject and other and subject is not other:
            self._relations.append((subject, relation, other))


@dataclass(frozen=True)
class _Run:
    """Colours in a row, words start..end."""

    start: int
    end: int
    colours: tuple[str, ...]


def _colour_runs(sentence: Sequence[str], colours: Sequence[Item]) -> list[_Run]:
    runs: list[_Run] = []
    for item in colours:
        last = runs[-1] if runs else None
        if last and item.start - last.end <= 1 and set(sentence[last.end : item.start]) <= {"and", "or"}:
            runs[-1] = _Run(last.start, item.end, (*last.colours, item.value, *item.further))
        else:
            runs.append(_Run(item.start, item.end, (item.value, *item.further)))
    return runs


def _clause_start(sentence: Sequence[str], place: int) -> int:
    """Where the clause of a place begins: after the last `and`, `while`, `but`, comma and such before it."""
    for i in range(place - 1, -1, -1):
        if sentence[i] in CLAUSE_STARTS or sentence[i] in ("and", ":", "—", "–"):
            return i + 1
    return 0


def _heads(sentence: Sequence[str], item: Item, noun: int) -> bool:
    """Whether an attribute opens a clause about the noun phrase at `noun`: `, at the top right a blue one`."""
    opens = item.start == 0 or sentence[item.start - 1] in (",", "and", *CLAUSE_STARTS)
    return opens and all(word in COPULAS | VERBS | CORNERS for word in sentence[item.end : noun])


def _give(things: Iterable[_Thing], item: Item) -> None:
    for thing in things:
        thing.attributes.setdefault(item.group, item.value)
