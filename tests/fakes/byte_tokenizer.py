"""A tokenizer whose vocabulary is the 256 bytes: every text takes as many tokens as it has bytes in UTF-8."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel


def byte_tokenizer(folder: Path, max_length: int = 8) -> Path:
    """Writes `tokenizer.json` into the folder; the file asks for texts to be cut, as some of the Hub's do."""
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({char: i for i, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.enable_truncation(max_length)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
