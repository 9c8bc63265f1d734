"""The captioner's tokenizer: what the world always says alike is one token, what signs say is letters.

Three kinds of tokens: words and whole phrases of prompts and captions, mostly with the space before them; numbers of
boxes (`0.372`), so that a box costs ten tokens; and the 256 bytes, of which everything else is written, above all the
text of signs. So to copy a sign is to copy letters, the same ones in notes and caption, whatever the word.

There are no merges: a piece that is in the vocabulary is a token, any other falls into bytes. So no unseen word can be
made of pieces that training never showed.
"""

import re
from typing import Any

from demo.alt_text import PHRASES, VAGUE
from demo.backgrounds import SETTINGS
from demo.captions import DENSE_SIDES, DEPTHS, NUMBERS
from demo.palette import OBJECT_COLOURS
from demo.scene import SIZE_WORDS
from demo.shapes import CATEGORIES

PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL = (PAD, BOS, EOS, IMAGE, *ROLES)
MAX_LENGTH = 1024
NUMBERS_OF_BOXES = tuple(f"{i / 1000:.3f}" for i in range(1001))

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{{ eos_token }}{% endgeneration %}"
    "{% elif message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A token for each role; training finds the answer, and its end, between the generation marks."""

_PROMPT_PHRASES = (
    "Describe the image; believe it rather than the notes.",
    "Notes about the image:\n\n",
    "Short caption from the web page:\n",
    "\n\nDetected objects:\n-",
    "Detected objects:\n-",
    "\n\nTags:",
    "\n\nFrom near to far:",
    "\n\nText in the image:\n-",
    "\n\nDescribe the image.",
    "Describe the image.",
    ": [",
    "]\n-",
    "\n-",
    " |",
)
_CAPTION_PHRASES = (
    "The image shows",
    " There is",
    " There are",
    " object in view.",
    " objects in view.",
    *(f" stands {where}" for where in DEPTHS.values()),
    *(f" {where}" for where in DENSE_SIDES.values()),
    ", partly hidden by something nearer",
    ', and it reads "',
    '".',
    " is closer to the camera than the",
    ", to the left of it.",
    ", to the right of it.",
    *(f" {setting.phrase}." for setting in SETTINGS.values()),
)
_REPAIR_PHRASES = (
    "Your description has these faults:\n-",
    "\n\nWrite the whole description again without them. Answer with the description alone.",
    ' The image has the text "',
    '"; quote it.',
    ' The text "',
    '" is not spelled so in the image: "',
    ' The quoted text "',
    '" is not in the image.',
    ' Nothing of the kind "',
    '" was seen in the image; do not mention it.',
    " is not left of the",
    " is not right of the",
    " is not nearer than the",
    " is not in the foreground with the",
    " in the background: the",
    " is nearer.",
    " of the image.",
    " Fewer things called",
    " The description",
    ", but left of it.",
    ", but right of it.",
    ", but farther.",
    " It is",
    " They are",
)
"""Of the second turn. They are the last tokens, because the others had learnt their places before."""


def pieces() -> list[str]:
    """Words and phrases that are one token, longest first."""
    words = {*CATEGORIES, *OBJECT_COLOURS, *SIZE_WORDS, *SETTINGS, *NUMBERS}
    for text in (*PHRASES, *VAGUE):
        words |= set(re.findall("[A-Za-z]{2,}", re.sub(r"\{.*?\}", " ", text)))
    spaced = {f" {word}" for word in (*words, "a", "an", "and", "in", "A", "An", "The")}
    found = {*_PROMPT_PHRASES, *_CAPTION_PHRASES, *words, *spaced, "a", "an"}
    return sorted(found, key=lambda piece: (-len(piece), piece))


def make_tokenizer() -> Any:
    """A `PreTrainedTokenizerFast` with its chat template; the same on every machine."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*pieces(), *_REPAIR_PHRASES]
    in_boxes = [*NUMBERS_OF_BOXES, ", "]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    written = (*pieces(), *in_boxes, *_REPAIR_PHRASES)
    symbols = [to_bytes.pre_tokenize_str(piece)[0][0] for piece in written]
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *symbols]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    alternatives = [
        *(_bounded(piece) for piece in sorted(known, key=len, reverse=True)),
        r"[01]\.\d{3}(?=[,\]])",
        r", (?=[01]\.\d{3}[,\]])",
        r"[\s\S]",
    ]
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("|".join(alternatives)), "isolated"), to_bytes]
    )
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(ROLES)})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _bounded(piece: str) -> str:
    """A pattern of the piece, but not of a part of a longer word."""
    before = "(?<![A-Za-z])" if piece[0].isalpha() else ""
    after = "(?![A-Za-z])" if piece[-1].isalpha() else ""
    return f"{before}{re.escape(piece)}{after}"
