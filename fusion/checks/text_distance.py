"""How far text is from other text, letter by letter."""

_LOOKALIKES = str.maketrans("01ilı|5", "oiiiiis")


def letters(text: str) -> str:
    """Letters and digits alone, case-folded; those that look alike in print (0 O, 1 I l, 5 S) are one."""
    return "".join(c for c in text.casefold().translate(_LOOKALIKES) if c.isalnum())


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
