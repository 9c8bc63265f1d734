"""How far text is from other text, letter by letter."""

import unicodedata

_LOOKALIKES = str.maketrans("01ilı|5", "oiiiiis") | dict.fromkeys(range(0x300, 0x370))
"""The second part drops accents, which readers leave off; not the marks of other scripts, which make other letters."""


def letters(text: str) -> str:
    """Letters and digits alone, case-folded and without accents; those that look alike in print (0 O, 1 I l, 5 S) are
    one."""
    apart = unicodedata.normalize("NFD", text.casefold())
    return "".join(c for c in unicodedata.normalize("NFC", apart.translate(_LOOKALIKES)) if c.isalnum())


def substring_distance(needle: str, text: str) -> int:
    """Least edits (insert, delete, substitute) from `needle` to any substring of `text`.

    Myers' bit vectors (J. ACM 46(3), 1999): a column of the matrix of distances is two integers, whatever its height.
    """
    if needle in text:
        return 0
    size = len(needle)
    places: dict[str, int] = {}
    for i, char in enumerate(needle):
        places[char] = places.get(char, 0) | 1 << i
    full, last = (1 << size) - 1, 1 << (size - 1)
    up, down, score, best = full, 0, size, size
    for char in text:
        here = places.get(char, 0)
        vertical = here | down
        diagonal = (((here & up) + up) ^ up) | here
        rise, fall = down | ~(diagonal | up) & full, up & diagonal
        score += bool(rise & last) - bool(fall & last)
        best = min(best, score)
        rise, fall = rise << 1 & full, fall << 1 & full
        up, down = fall | ~(vertical | rise) & full, rise & vertical
    return best
