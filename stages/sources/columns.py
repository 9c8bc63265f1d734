"""The column names of public web-image metadata, and their values in one form.

Aliases are matched case-insensitively, first hit wins. They cover LAION-2B-en, its joined and aesthetic subsets,
Re-LAION (img2dataset's output columns), DataComp and COYO-700M.
"""

import math
from collections.abc import Callable, Collection
from typing import Any

import pyarrow as pa

from schemas.errors import RequestError

ALIASES: dict[str, tuple[str, ...]] = {
    "uid": ("uid",),
    "url": ("url",),
    "alt_text": ("text", "caption", "alt_text"),
    # img2dataset's `width` is the stored copy's; `original_width` is the image's
    "width": ("original_width", "width"),
    "height": ("original_height", "height"),
    "punsafe": ("punsafe", "nsfw_score_opennsfw2"),
    "pwatermark": ("pwatermark", "watermark_score"),
    "aesthetic": ("aesthetic", "aesthetic_score", "aesthetic_score_laion_v2"),
    # LAION's `similarity` is CLIP B/32's, so the others' B/32 column comes before their L/14
    "similarity": (
        "similarity",
        "clip_b32_similarity_score",
        "clip_similarity_vitb32",
        "clip_l14_similarity_score",
        "clip_similarity_vitl14",
    ),
    "language": ("language",),
    "status": ("status",),
}

_FLOAT32_MAX = 3.4028234663852886e38


def known_columns(columns: dict[str, str], canonical: Collection[str]) -> dict[str, str]:
    """`columns` as a configuration gives them; raises ValueError for one that is not canonical."""
    unknown = sorted(columns.keys() - set(canonical))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not a canonical column; those are {', '.join(canonical)}")
    return columns


def resolve_columns(names: list[str], overrides: dict[str, str], where: str) -> dict[str, str]:
    """Canonical name to the file's own column, for every canonical column that the file has.

    Args:
        names: the file's columns.
        overrides: canonical name to column, as the user configured; these come before the aliases.
        where: the file, for the error.

    Raises:
        RequestError: no URL column, an override names a column that is not there, or two columns share a wanted name.
    """
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.casefold(), name)
    found: dict[str, str] = {}
    for canonical, aliases in ALIASES.items():
        wanted = (overrides[canonical],) if canonical in overrides else aliases
        hit = next((folded[alias.casefold()] for alias in wanted if alias.casefold() in folded), None)
        if hit is not None:
            found[canonical] = hit
        elif canonical in overrides:
            raise RequestError(
                f"{where} has no column {overrides[canonical]} (ingest.columns.{canonical}). "
                f"It has: {', '.join(names)}."
            )
    if "url" not in found:
        raise RequestError(
            f"{where}: no column is known as the image URL. It has: {', '.join(names) or 'none'}. "
            "Name it with the `columns` option, as in `ingest: {columns: {url: THEIR_NAME}}`."
        )
    for hit in found.values():
        if names.count(hit) > 1:
            raise RequestError(f"{where} has {names.count(hit)} columns named {hit}. Rename all but one.")
    return found


def canonical_batch(batch: pa.RecordBatch, found: dict[str, str]) -> dict[str, list[Any]]:
    """One batch as Python values under the canonical names, None where the file states nothing.

    Sizes become positive ints (null, NaN, infinite, zero, negative and unreadable ones become None), scores finite
    float32 values or None. Texts are str, bytes that are not UTF-8 replaced, None where empty; all but the alt text
    lose surrounding space, and the language its capitals.
    """
    out: dict[str, list[Any]] = {name: [None] * batch.num_rows for name in ALIASES}
    for canonical, name in found.items():
        column = batch.column(batch.schema.get_field_index(name))
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            # files in the wild declare text that is not UTF-8; reading it as text would fail the batch
            column = column.cast(pa.large_binary())
        read = _READ.get(canonical, _word)
        out[canonical] = [read(value) for value in column.to_pylist()]
    return out


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) <= _FLOAT32_MAX else None


def _size(value: Any) -> int | None:
    number = _number(value)
    return round(number) if number is not None and 1 <= number < 2**31 else None


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)) or None


def _word(value: Any) -> str | None:
    return (_text(value) or "").strip() or None


def _lower_word(value: Any) -> str | None:
    word = _word(value)
    return word and word.lower()


_READ: dict[str, Callable[[Any], Any]] = {
    "width": _size,
    "height": _size,
    "punsafe": _number,
    "pwatermark": _number,
    "aesthetic": _number,
    "similarity": _number,
    "alt_text": _text,
    "language": _lower_word,
}
