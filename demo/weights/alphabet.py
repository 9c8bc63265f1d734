"""The byte-level alphabet of CLIP's and BART's tokenizers: whatever the merges, any text can be written with it."""

from tokenizers.pre_tokenizers import ByteLevel


def byte_symbols() -> list[str]:
    """The 256 printable characters that stand for the bytes, sorted."""
    return sorted(ByteLevel.alphabet())


def bart_vocabulary() -> dict[str, int]:
    """BART's special tokens at their usual ids, then the bytes."""
    return {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *byte_symbols(), "<mask>"])}
