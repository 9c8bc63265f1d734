"""The sentences of a caption and their words, by rules that fit any text, in time linear in its length."""

import re
from collections.abc import Iterator

_SPACELESS = "\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f"  # kana, Han, Thai: what the check of the length counts so, too
_BETWEEN = rf"\s—–。！？{_SPACELESS}"
_WORD = re.compile(
    rf"(?=[^\W_])[{_SPACELESS}]{{1,2}}|[{_SPACELESS}](?=[^\W_])[{_SPACELESS}]"
    rf"|(?<![^{_BETWEEN}])(?:_|[^\w{_BETWEEN}])*+[^\W_{_SPACELESS}][^{_BETWEEN}]*+"
)
_MARK = re.compile(r"[.!?…。！？]++[\"'”’»」』）)\]*_]*+|[\n\r]++")
_ALWAYS_ENDS = re.compile(r"[。！？\n\r]")
_ABBREVIATIONS = {"mr", "mrs", "ms", "dr", "prof", "st", "mt", "vs", "cf"}
_BEFORE_NUMBERS = {"no", "nos", "fig", "vol", "p", "pp", "approx", "ca"}
_LOOKED_BACK = 12  # characters before a full stop: an abbreviation is shorter


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, in order; what holds no word is none.

    One ends at `.`, `!`, `?` or `…` (with the quotation marks and brackets that close there) before white space, at the
    full-width forms of the first three, and at a line break. It goes on where a small letter follows, after an
    abbreviation, after the initial of a name, and after the number that begins an item of a list.
    """
    start = 0
    for match in _MARK.finditer(text):
        if not _ends(text, start, match):
            continue
        if _has_words(text[start : match.end()]):
            yield text[start : match.end()]
        start = match.end()
    if _has_words(text[start:]):
        yield text[start:]


def words(text: str) -> list[str]:
    """What stands between white space or dashes and holds a letter or digit, with the marks that touch it.

    So `close-up`, `isn't` and `1,200` are one word each. In scripts that write without spaces two characters are one.
    """
    return _WORD.findall(text)


def _has_words(text: str) -> bool:
    """Whether there is a letter or digit."""
    return any(map(str.isalnum, text))


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    if _ALWAYS_ENDS.search(match[0]):
        return True
    beyond = text[match.end() : match.end() + 4]
    following = beyond.strip()[:1]
    if not beyond[:1].isspace() or following.islower():
        return False
    if match[0] != ".":
        return True
    before = text[max(start, match.start() - _LOOKED_BACK) : match.start()].split()
    last = before[-1].lstrip('("“').lower() if before else ""
    if last in _BEFORE_NUMBERS and following.isdigit():
        return False
    initials = all(len(part) == 1 and part.isalpha() for part in last.split("."))
    begins_item = len(before) == 1 and last.isdigit() and len(last) <= 3
    return not (last in _ABBREVIATIONS or initials or begins_item)
