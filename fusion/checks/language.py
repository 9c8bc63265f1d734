"""Captions that are, or go on, in another language."""

import re
from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind
from fusion.evaluate.words import QUOTED

_STOP_WORDS = {
    "en": "the a an and of in on with is are to it its at by from this that there which as for while has be into or "
    "their behind under near above some two one them they was not",
    "de": "der die das und ein eine einem einen einer ist sind im mit auf von den dem zu es nicht auch hinter vor "
    "neben über unter sich zwei wird steht liegt sowie am zur zum bei",
    "fr": "le la les un une des et est sont dans sur avec du de au aux qui ce cette il elle pas en par pour derrière "
    "devant sous près deux se trouve on plus",
    "es": "el la los las un una unos y es son en con del de al que se está están por para hay sobre detrás delante "
    "junto dos lo su no más una",
    "it": "il lo la gli le un una e è sono nel nella con di del della dei al che si in su per dietro davanti sotto "
    "due non più sul sulla",
    "pt": "o a os as um uma e é são no na em com do da dos das ao que se está estão por para há sobre atrás frente "
    "duas dois não mais",
    "nl": "de het een en is zijn in op met van den te dat die er niet ook achter voor naast onder boven twee staat "
    "ligt wordt bij aan uit",
}
_WORDS = {name: frozenset(words.split()) for name, words in _STOP_WORDS.items()}
_NAMES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
}
_SENTENCE = re.compile(r"[.!?。！？\n]+")
_WORD = re.compile(r"[^\W\d_]+")
_LEAST_WORDS = 4
"""A shorter sentence, a title say, tells nothing."""
_LEAST_VOTES = 2
"""Stop words of another language by which it must lead."""


def language(case: Case) -> Iterator[Finding]:
    """A sentence, outside of quotation marks, in another script or with more of another language's small words."""
    wanted = case.section.language
    if wanted is None:
        return
    for sentence in _SENTENCE.split(QUOTED.sub(" ", case.caption.text)):
        if _foreign(sentence, wanted):
            yield Finding(
                FindingKind.WRONG_LANGUAGE,
                f'"{sentence.strip()[:60]}" is in another language; write in {_NAMES[wanted]} alone.',
            )
            return


def _foreign(sentence: str, wanted: str) -> bool:
    signs = [c for c in sentence if c.isalpha()]
    other_script = sum(not _is_latin(c) for c in signs)
    if other_script >= _LEAST_WORDS and other_script * 2 > len(signs):
        return True
    words = _WORD.findall(sentence.casefold())
    if len(words) < _LEAST_WORDS:
        return False
    own = sum(word in _WORDS[wanted] for word in words)
    best = max(sum(word in known for word in words) for name, known in _WORDS.items() if name != wanted)
    return best - own >= _LEAST_VOTES


def _is_latin(char: str) -> bool:
    """Latin letters with their accents; also the phonetic ones."""
    return char < "\u02b0" or "\u1e00" <= char <= "\u1eff"
