"""The byte-level alphabet of CLIP's and BART's tokenizers: with it and no merges, any text can be written."""

from tokenizers.pre_tokenizers import ByteLevel


def byte_symbols() -> list[str]:
    """The 256 printable characters that stand for the bytes, sorted."""
    return sorted(ByteLevel.alphabet())


def clip_vocabulary() -> dict[str, int]:
    """Bytes, bytes that end a word, then start and end of text.

    CLIP's text towers pool at the largest id, so the end of text has it.
    """
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}


def bart_vocabulary() -> dict[str, int]:
    """BART's special tokens at their usual ids, then the bytes."""
    return {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *byte_symbols(), "<mask>"])}
