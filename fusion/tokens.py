"""How many tokens a text takes: counted by a model's own tokenizer, or reckoned from above where there is none."""

import math
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from schemas.errors import RequestError
from schemas.section import ModelRef

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
# A space before a letter is part of the word's first token, in every tokenizer in use.
_WORD = re.compile(r"[A-Za-z]+| (?=[A-Za-z])")


class TokenCounter(Protocol):
    """Counts the tokens of a text, without those that begin or end a sequence."""

    @property
    def name(self) -> str: ...

    def count(self, text: str) -> int: ...


class Estimate:
    """An upper estimate for any byte-level tokenizer, from the characters alone.

    A word of ASCII letters takes a token for every `chars_per_token` letters begun, where a capital counts as two;
    every other ASCII character takes one (digits stand alone in many vocabularies), any further one as many as it has
    bytes in UTF-8. At 1 character per token no such tokenizer needs more.
    """

    name = "estimate"

    def __init__(self, chars_per_token: float) -> None:
        self._chars_per_token = chars_per_token

    def count(self, text: str) -> int:
        tokens = len(text.encode("utf-8", "surrogatepass"))
        for match in _WORD.finditer(text):
            word = match.group()
            tokens -= len(word)
            if word != " ":
                width = min(len(word) + sum(map(str.isupper, word)), len(word) * self._chars_per_token)
                tokens += math.ceil(width / self._chars_per_token)
        return tokens


class ModelTokenizer:
    """The tokenizer of a `tokenizer.json`. Raises RequestError at the first count where the file cannot be read."""

    name = "tokenizer"

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[type["ModelTokenizer"], tuple[Path]]:
        return ModelTokenizer, (self._file,)

    def count(self, text: str) -> int:
        # A lone surrogate has no bytes that a tokenizer could be given.
        plain = text.encode("utf-8", "replace").decode()
        return len(self._tokenizer.encode(plain, add_special_tokens=False).ids)

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(self._file))
        except Exception as error:  # the library raises bare Exception
            raise RequestError(
                f"The tokenizer {self._file} cannot be read: {error}. Mend the file, or give another one "
                "(caption.budget.tokenizer.model)."
            ) from None
        # Files may say how to cut and fill up, which would hide what does not fit.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def tokenizer_file(ref: ModelRef) -> Path | None:
    """The `tokenizer.json` of a model that lies on this machine: in its folder, or where the Hub's files are kept."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(ref.model).is_dir():
        file = Path(ref.model) / TOKENIZER_FILE
        return file if file.is_file() else None
    try:
        kept = try_to_load_from_cache(ref.model, TOKENIZER_FILE, revision=ref.revision)
    except HFValidationError:  # the name of an engine elsewhere need not be a hub id
        return None
    return Path(kept) if isinstance(kept, str) else None


def fetched_tokenizer_file(ref: ModelRef) -> Path:
    """The same, fetched from the Hub where it is not here yet.

    Raises:
        RequestError: there is none, or the Hub cannot be reached.
    """
    found = tokenizer_file(ref)
    if found is not None:
        return found
    advice = f"Give a folder or a hub id with a {TOKENIZER_FILE} (caption.budget.tokenizer.model)."
    if Path(ref.model).exists() or ref.model.startswith(("/", "./", "../", "~")):
        raise RequestError(f"There is no {TOKENIZER_FILE} in {ref.model}. {advice}")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(ref.model, TOKENIZER_FILE, revision=ref.revision))
    except Exception as error:  # the library's, and those of the HTTP client below it
        words = " ".join(str(error).split())[:300]
        raise RequestError(
            f"The tokenizer of {ref.model} cannot be fetched from the Hub: {type(error).__name__}: {words} {advice}"
        ) from None
