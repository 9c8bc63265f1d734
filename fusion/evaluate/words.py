"""From text to sentences of words, and from a noun to its plurals."""

import re

# A single quote opens after a space or bracket and closes before one, else it is an apostrophe.
QUOTED = re.compile(
    r"\"([^\"\n]+)\"|“([^”\n]+)”|„([^“”\n]+)[“”]|«([^»\n]+)»|「([^」\n]+)」|(?<![\w'])'([^'\n]+)'(?!\w)"
)
_TOKEN = re.compile(
    r"\d+(?:[.,:/]\d+)*"
    r"|[^\W_]+(?:[-‐‑][^\W_]+)*(?:['’][^\W\d_]+)?"
    r"|[,:()—–]"
    r"|[.!?;\n]+"
)
_ENDS = re.compile(r"[.!?;\n]")
_NEGATED = re.compile(r"(\w+)n['’]t$")
_OWNED = re.compile(r"(\w[\w-]*)['’]s?$")
_IS = {"it", "there", "that", "he", "she", "what", "here", "this"}
_IRREGULAR = {
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
    "goose": "geese",
    "mouse": "mice",
    "ox": "oxen",
    "die": "dice",
    "cactus": "cacti",
}
_SAME = {"sheep", "deer", "fish", "aircraft", "spacecraft", "series", "species"}


def quotes(text: str) -> list[str]:
    """What stands in quotation marks of any kind, in order, spaces collapsed."""
    found = (next(group for group in match.groups() if group) for match in QUOTED.finditer(text))
    return [" ".join(one.split()) for one in found]


def sentences(text: str) -> list[list[str]]:
    """Case-folded words and marks (, : ( ) and dashes) of each sentence; a quotation is the one word `quotation`.

    A semicolon ends a sentence. `isn't` is `is not`, `there's` is `there is`, `ball's` is `ball 's`.
    """
    out: list[list[str]] = [[]]
    for match in _TOKEN.finditer(QUOTED.sub(" quotation ", text)):
        token = match.group().casefold()
        if _ENDS.match(token):
            out.append([])
        else:
            out[-1] += _parts(token)
    return [sentence for sentence in out if sentence]


def _parts(token: str) -> list[str]:
    if negated := _NEGATED.match(token):
        return [{"ca": "can", "wo": "will", "sha": "shall"}.get(negated[1], negated[1]), "not"]
    if token == "cannot":
        return ["can", "not"]
    if owned := _OWNED.match(token):
        return [owned[1], "is" if owned[1] in _IS else "'s"]
    return [token]


def plurals(phrase: str) -> set[str]:
    """Plural forms of a noun phrase in the singular; of its last word."""
    *before, last = phrase.split()
    return {" ".join([*before, form]) for form in _plurals(last)}


def _plurals(noun: str) -> set[str]:
    if noun in _IRREGULAR:
        return {_IRREGULAR[noun], f"{noun}s"}
    for end, plural in _IRREGULAR.items():
        if len(end) > 2 and noun.endswith(end) and end in ("man", "person", "child"):
            return {noun.removesuffix(end) + plural}
    if noun in _SAME:
        return {noun}
    if re.search(r"[^aeiou]y$", noun):
        return {f"{noun[:-1]}ies"}
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return {f"{noun}es"}
    forms = {f"{noun}s"}
    if re.search(r"[^f]fe?$", noun):
        forms.add(f"{noun.removesuffix('e')[:-1]}ves")
    if re.search(r"[^aeiou]o$", noun):
        forms.add(f"{noun}es")
    return forms
