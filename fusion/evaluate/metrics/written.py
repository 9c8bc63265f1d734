"""Text: whether what can be read in the picture is repeated to the letter."""

from fusion.evaluate.claims import Claims
from fusion.evaluate.tally import Tally
from fusion.evaluate.truth import TruthRow


def written(claims: Claims, truth: TruthRow) -> dict[str, Tally]:
    """Precision and recall of quoted text.

    A text is written where a quotation, or several in a row together, are it to the letter, in its case; spaces do not
    count. `text_copied` is the recall of those texts that the given lines of text hold to the letter: what was read
    wrongly cannot be copied.
    """
    quoted = [letters(one) for one in claims.quotes]
    used: set[int] = set()
    found: list[str] = []
    for text in truth.texts:
        place = _place(letters(text), quoted, used)
        if place:
            used |= set(place)
            found.append(text)
    given = truth.seen().seen_text()
    held = letters("".join(given)) if given else ""
    copied = [text for text in truth.texts if letters(text) in held] if held else []
    return {
        "text_precision": Tally(len(used), len(quoted)),
        "text_recall": Tally(len(found), len(truth.texts)),
        "text_copied": Tally(sum(text in found for text in copied), len(copied)),
    }


def letters(text: str) -> str:
    """A text without its spaces."""
    return "".join(text.split())


def _place(text: str, quoted: list[str], used: set[int]) -> range | None:
    """Quotations in a row, none used before, that are a text together."""
    for start in range(len(quoted)):
        for end in range(start + 1, len(quoted) + 1):
            if used & set(range(start, end)):
                break
            if "".join(quoted[start:end]) == text:
                return range(start, end)
    return None
