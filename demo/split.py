"""Which scenes models are trained on, which choose thresholds, and which nothing is ever fitted to."""

import zlib
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

HELD_OUT = "mug"
"""The category that the open-set detector is never trained to find: what it finds of it, it knows by name alone."""

_FIRST: dict[Split, int] = {"test": 0, "train": 1_000_000_000, "validation": 2_000_000_000}
_END = 3_000_000_000


def split_of(seed: int) -> Split:
    """The split of a scene's seed. Worlds and tests use seeds below 10**9, which are all of the test split.

    Raises:
        ValueError: the seed belongs to no split.
    """
    if not 0 <= seed < _END:
        raise ValueError(f"scene seeds lie between 0 and {_END - 1}, not at {seed}")
    if seed >= _FIRST["validation"]:
        return "validation"
    return "train" if seed >= _FIRST["train"] else "test"


def seeds(split: Split, count: int, first: int = 0) -> range:
    """`count` seeds of a split, beginning with its `first`-th."""
    return range(_FIRST[split] + first, _FIRST[split] + first + count)


def split_of_word(word: str) -> Split:
    """The one split whose signs may bear a word: seven tenths train, one tenth validation, two tenths test."""
    share = zlib.crc32(word.lower().encode()) % 10
    return "train" if share < 7 else "validation" if share == 7 else "test"
