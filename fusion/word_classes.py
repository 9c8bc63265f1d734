"""Which words of an English text are nouns, adjectives, adverbs, verbs and numbers.

The tagger is HanTa (Wartena 2023, doi:10.25968/opus-2457), a Markov model over words and their morphemes; its English
model lies in the package, and has the tags of the British National Corpus (C5).
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from itertools import islice
from typing import Any

from fusion.sentences import sentences, words

MOST_WORDS = 1000
"""Words of a text that are tagged; no caption that ends is so long."""

_ALNUM = re.compile(r"[^\W_]")
_CLITIC = re.compile(r"(.+)(n't|'s|'re|'ve|'ll|'d|'m)|(can)(not)", re.IGNORECASE)
_QUOTES = dict.fromkeys("“”„«»", '"')
# The tagger's time grows with the square of a word's length, and in long sentences it loses its way.
_WORD_CHARS = 40
_SENTENCE_WORDS = 200


class WordClass(StrEnum):
    """What a word is.

    Proper names are nouns, ordinals adjectives, auxiliaries and modals verbs; `not` is an adverb, the particle of `sit
    down` is none; determiners, `many` and `several` too, are none of these. A possessive or a short form belongs to its
    word: `cat's` is one noun, `isn't` one verb. What has digits and no letter is a number.
    """

    NOUN = "noun"
    ADJECTIVE = "adjective"
    ADVERB = "adverb"
    VERB = "verb"
    NUMBER = "number"
    OTHER = "other"


_CLASSES = {
    WordClass.NOUN: ("NN", "NP"),
    WordClass.ADJECTIVE: ("AJ", "ORD"),
    WordClass.ADVERB: ("AV0", "AVQ", "XX"),
    WordClass.VERB: ("V",),
    WordClass.NUMBER: ("CRD",),
}


def word_classes(text: str) -> Iterator[WordClass]:
    """The class of each of the first `MOST_WORDS` words of an English text (fusion.sentences.words)."""
    left = MOST_WORDS
    for sentence in sentences(text):
        found = iter(words(sentence))
        while left and (piece := list(islice(found, min(left, _SENTENCE_WORDS)))):
            left -= len(piece)
            yield from _tagged(piece)
        if not left:
            return


def _tagged(piece: list[str]) -> Iterator[WordClass]:
    tokens: list[str] = []
    places = []
    for word in piece:
        before, parts, after = _tokens(word)
        places.append(len(tokens) + len(before))
        tokens += [*before, *parts, *after]
    tags = _tagger().tag_sent(tokens, taglevel=0)
    for place in places:
        yield _class(tokens[place], tags[place])


def _tokens(word: str) -> tuple[list[str], list[str], list[str]]:
    """A mark before the word, the word and its clitic, up to two marks after it, as the tagger's corpus parts them."""
    first = next(_ALNUM.finditer(word)).start()
    last = len(word) - next(_ALNUM.finditer(word[::-1])).start()
    bare = word[first:last].replace("’", "'")[:_WORD_CHARS]
    clitic = _CLITIC.fullmatch(bare)
    parts = [part for part in clitic.groups() if part] if clitic else [bare]
    marks = [[_QUOTES.get(mark, mark) for mark in side] for side in (word[:first][-1:], word[last:][:2])]
    return marks[0], parts, marks[1]


def _class(word: str, tag: str) -> WordClass:
    if not any(map(str.isalpha, word)):
        return WordClass.NUMBER
    return next((name for name, starts in _CLASSES.items() if tag.startswith(starts)), WordClass.OTHER)


@cache
def _tagger() -> Any:
    from HanTa.HanoverTagger import HanoverTagger

    return HanoverTagger("morphmodel_en.pgz")
