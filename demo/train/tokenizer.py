"""Byte-level tokenizers with small vocabularies in which every word of the scene world's texts is one token.

Any text can be written: what is no word of the world falls into pieces, at worst bytes.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from demo.train.texts import words

CONTEXT = 64
"""Tokens that a text may have, its start and end among them."""

Merge = tuple[str, str]


def make_tokenizer() -> Any:
    """A transformers `CLIPTokenizer`; the same on every machine.

    The end of text has the largest id, at which CLIP's text towers pool.
    """
    from transformers import CLIPTokenizer

    merges = merges_for(words())
    symbols = sorted(ByteLevel.alphabet())
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
    tokens += [*(first + second for first, second in merges), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def bart_vocabulary() -> dict[str, int]:
    """BART's special tokens at their usual ids, then the 256 characters that stand for the bytes."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    return {token: i for i, token in enumerate(tokens)}


def merges_for(whole: list[str]) -> list[Merge]:
    """Byte-pair merges that make each ASCII word one token with CLIP's mark of a word's end."""
    return byte_pair_merges([[*word[:-1], f"{word[-1]}</w>"] for word in whole])


def byte_pair_merges(words: Iterable[Sequence[str]]) -> list[Merge]:
    """Merges (Sennrich et al. 2016, arXiv:1508.07909) that make each word, a sequence of symbols, one token.

    The `tokenizers` trainer breaks ties by the order of a hash map, so that two runs give two vocabularies; here the
    most frequent pair wins, among equals the last in alphabetical order.
    """
    pieces = [list(word) for word in words]
    merges: list[Merge] = []
    while pairs := Counter(pair for word in pieces for pair in itertools.pairwise(word)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for word in pieces:
            _merge(word, best)
    return merges


def _merge(word: list[str], pair: Merge) -> None:
    i = 0
    while i < len(word) - 1:
        if (word[i], word[i + 1]) == pair:
            word[i : i + 2] = [word[i] + word[i + 1]]
        i += 1
