"""Counting tokens: the estimate is above what real tokenizers need, and a tokenizer's file is read whole."""

import base64
import json
import pickle
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.priors import Box, Priors, TextLine
from fusion.prompt import Prompt, PromptSection
from fusion.tokens import Estimate, ModelTokenizer, fetched_tokenizer_file, tokenizer_file
from schemas.errors import RequestError
from schemas.section import ModelRef
from tests.fakes.byte_tokenizer import byte_tokenizer

SENTENCES = (
    "A man in a yellow raincoat holds a black umbrella beside a parked bicycle on a wet cobblestone street.",
    "Die Altstadt von Heidelberg mit Blick auf die Karl-Theodor-Brücke, aufgenommen an einem Sommerabend.",
    "北京故宫博物院太和殿前的广场，许多游客在拍照",
    "ताज महल आगरा में यमुना नदी के किनारे",
    "STOP AHEAD NO PARKING KEEP CLEAR FIRE EXIT WELCOME SPECIAL OFFER",
    "Canon EOS 5D Mark IV, 24-105mm f/4L, $1,299.00 (was $1,499.00) #sale @shop 🎉",
)


def sentencepiece() -> Callable[[str], int]:
    """Mistral's first tokenizer: 32,000 pieces, digits alone, as LLaMA's."""
    processor = pytest.importorskip("sentencepiece").SentencePieceProcessor
    pieces = processor(model_file=str(_mistral("tokenizer.model.v1")))
    return lambda text: len(pieces.encode(text))


def tekken() -> Callable[[str], int]:
    """Mistral's byte-level BPE of 131,072 tokens."""
    told = json.loads(_mistral("tekken_240911.json").read_text())
    size = told["config"]["default_vocab_size"] - told["config"]["default_num_special_tokens"]
    ranks = {base64.b64decode(one["token_bytes"]): one["rank"] for one in told["vocab"][:size]}
    encoding = pytest.importorskip("tiktoken").Encoding(
        "tekken", pat_str=told["config"]["pattern"], mergeable_ranks=ranks, special_tokens={}
    )
    return lambda text: len(encoding.encode(text))


def _mistral(name: str) -> Path:
    """Of mistral_common, which comes with vLLM."""
    pytest.importorskip("mistral_common")
    return Path(str(resources.files("mistral_common") / "data" / name))


def full_prompt(template: str) -> str:
    boxes = [
        Box(expert="closed_set", anchor=i, label=name, score=0.9, x1=i / 99, y1=0.123, x2=0.5 + i / 99, y2=0.987)
        for i, name in enumerate(["person", "traffic light", "dining table", "frisbee", "umbrella"] * 4)
    ]
    lines = [TextLine(text=text, score=0.9, polygon=[0.0] * 8) for text in SENTENCES]
    said = Prompt(PromptSection(template=template, merge_iou=1.0)).render(
        SENTENCES[0], Priors(closed_set=boxes, lines=lines)
    )
    return said.system + said.user


@pytest.mark.parametrize("tokenizer", [sentencepiece, tekken])
def test_the_estimate_is_above_real_tokenizers_and_not_far(tokenizer: Callable[[], Callable[[str], int]]) -> None:
    count, estimate = tokenizer(), Estimate(3.0).count
    prompts = [full_prompt(name) for name in ("caption_engine.v1", "tuned_engine.v1", "meta_caption.v1")]
    for text in (*SENTENCES, *prompts):
        assert estimate(text) >= count(text), text
    assert all(estimate(text) <= 1.8 * count(text) for text in prompts)


@given(st.text(), st.sampled_from([sentencepiece, tekken]))
def test_at_one_character_a_token_nothing_needs_more(text: str, tokenizer: Callable[[], Callable[[str], int]]) -> None:
    # SentencePiece may put a space of its own before the text.
    assert _known(tokenizer)(text) <= Estimate(1.0).count(text) + 1


COUNTERS: dict[Callable[[], Callable[[str], int]], Callable[[str], int]] = {}


def _known(tokenizer: Callable[[], Callable[[str], int]]) -> Callable[[str], int]:
    if tokenizer not in COUNTERS:
        COUNTERS[tokenizer] = tokenizer()
    return COUNTERS[tokenizer]


@given(st.text(), st.text(), st.floats(1, 10))
def test_the_estimate_grows_with_the_text(a: str, b: str, chars: float) -> None:
    estimate = Estimate(chars).count
    assert estimate(a) <= len(a.encode())
    assert estimate(a) + estimate(b) >= estimate(f"{a}{b}") - 1
    assert estimate(f"{a} {b}") >= max(estimate(a), estimate(b))


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_a_tokenizers_file_counts_whole_texts_and_never_raises(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    counter = ModelTokenizer(_bytes_file(tmp_path_factory))
    assert counter.count(text) == len(text.encode("utf-8", "replace"))
    assert pickle.loads(pickle.dumps(counter)).count(text) == counter.count(text)


def _bytes_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "bytes"
    if not folder.is_dir():
        byte_tokenizer(folder)
    return folder / "tokenizer.json"


def test_where_a_models_tokenizer_is_looked_for(tmp_path: Path) -> None:
    assert tokenizer_file(ModelRef(model=str(tmp_path))) is None
    with pytest.raises(RequestError, match=r"no tokenizer\.json in"):
        fetched_tokenizer_file(ModelRef(model=str(tmp_path)))
    byte_tokenizer(tmp_path)
    assert fetched_tokenizer_file(ModelRef(model=str(tmp_path))) == tmp_path / "tokenizer.json"
    assert tokenizer_file(ModelRef(model="an engine's own name")) is None
    with pytest.raises(RequestError, match=r"no tokenizer\.json in"):
        fetched_tokenizer_file(ModelRef(model=str(tmp_path / "none")))


def test_a_damaged_tokenizer_is_one_paragraph(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(RequestError, match="cannot be read") as error:
        ModelTokenizer(tmp_path / "tokenizer.json").count("a")
    assert "\n" not in str(error.value)
