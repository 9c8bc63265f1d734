"""Words from outside (alt text, text in the picture, labels) made safe to stand inside a prompt."""

import re
import unicodedata

# Joiners are format characters too, but scripts and emoji are spelled with them.
_JOINERS = {"\u200c", "\u200d"}
_OPEN, _CLOSE, _BAR = "[<\uff1c\ufe64]", "[>\uff1e\ufe65]", "[|\uff5c]"
_INSIDE = "[^<>\uff1c\ufe64\uff1e\ufe65]"
# What tokenizers of vision-language models take for one of their own: <image>, <|image_pad|>, </s>, <start_of_turn>,
# [IMG], [/INST]. HTML tags look the same and are no loss.
_TOKEN = re.compile(
    rf"{_OPEN}/?(?:{_BAR}|[^\W\d]){_INSIDE}*{_CLOSE}"
    r"|\[\s*/?\s*(?:IMG|IMAGE|INST|SYSTEM|AVAILABLE|TOOL|VIDEO|AUDIO)[\w ]*\]",
    re.IGNORECASE,
)


def clean(text: str, max_chars: int) -> str:
    """One line of at most `max_chars` characters, without control characters and without model tokens.

    Text is never interpreted: what looks like a special token is cut out, again and again until none is left, so that
    one cannot be assembled from the remains of another.
    """
    line = " ".join("".join(c if _printable(c) else " " for c in text).split())
    while (shorter := _TOKEN.sub(" ", line)) != line:
        line = " ".join(shorter.split())
    return line if len(line) <= max_chars else line[:max_chars].rstrip()


def _printable(char: str) -> bool:
    # Cc control, Cf format (bidi overrides), Cs lone surrogates, Cn unassigned.
    return char in _JOINERS or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Cn"}
