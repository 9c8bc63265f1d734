"""A small LLaVA (CLIP tower, projector, Llama) with random weights, a tokenizer of its own and a chat template.

A stock model for the engine to serve on a CPU: its captions are English words in random order.
"""

import itertools
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

IMAGE_SIZE, PATCH_SIZE = 56, 14
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
MAX_LENGTH = 4096
PAD, BOS, EOS, IMAGE = SPECIAL = ("<pad>", "<s>", "</s>", "<image>")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{{ '\n' }}{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

COLOURS = "red orange yellow green blue purple pink brown black white grey beige golden silver dark pale bright"
LOOKS = "wooden metal glass stone plastic paper smooth rough shiny large small tall round narrow striped empty"
THINGS = (
    "person man woman child dog cat bird horse car bicycle boat train chair table lamp window door wall floor house "
    "tree flower grass river mountain sky cloud road bridge sign letter number book clock cup plate bottle box bag "
    "shirt hat ball cube cone cylinder sphere shelf screen camera picture building street field beach fence roof "
    "garden kitchen"
)
PLACES = (
    "in front of|behind|above|below|beside|next to|to the left of|to the right of|on top of|under|near|far from|"
    "between|at the edge of|in the corner of|in the centre of"
)
VERBS = "stands lies hangs leans rests sits floats reflects covers holds faces touches shows carries reads"


def make(folder: Path) -> None:
    """Write model, tokenizer, image processor and chat template as transformers and vLLM load them."""
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = _tokenizer()
    # Head sizes that vLLM's attention for CPUs knows: 32 and its multiples.
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    vision = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval()
        _spread(model, _speakable(tokenizer))
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    _rename_tower(folder / "model.safetensors")
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1600,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_sentences(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def _sentences() -> Iterator[str]:
    """What the tokenizer is trained on: the prompt's own words, descriptions, boxes."""
    prompts = sorted((resources.files("fusion") / "prompts").iterdir(), key=lambda item: item.name)
    for item in prompts:
        yield from item.read_text(encoding="utf-8").splitlines()
    colours, looks, verbs = (itertools.cycle(words.split()) for words in (COLOURS, LOOKS, VERBS))
    places, things = itertools.cycle(PLACES.split("|")), THINGS.split()
    for number in range(2000):
        thing, other = things[number % len(things)], things[(number * 7 + 3) % len(things)]
        yield f"A {next(colours)} {next(looks)} {thing} {next(verbs)} {next(places)} the {other}."
        yield f"- {thing}: [0.{number % 1000:03d}, 0.{number * 13 % 1000:03d}, 0.{number * 29 % 1000:03d}, 1.000]"


def _speakable(tokenizer: Any) -> list[int]:
    """Tokens that are a whole English word after a space, a full stop or a comma."""
    words = {f" {word}" for word in re.split(r"[ |]", f"{COLOURS} {LOOKS} {THINGS} {PLACES} {VERBS}")}
    return [i for i in range(len(tokenizer)) if tokenizer.decode([i]) in words | {".", ","}]


def _spread(model: Any, speakable: list[int]) -> None:
    """Weights large enough that the image and the prompt decide the words, and that two logits rarely tie.

    A token that is not speakable has a logit of 0 for ever, and some word is always above that: a caption is never
    empty, and never holds half a character.
    """
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5)
        head = model.lm_head.weight
        spoken = head[speakable] * 3
        head.zero_()
        head[speakable] = spoken


def _rename_tower(weights: Path) -> None:
    """transformers 5 saves a fresh CLIP tower without the `vision_model` level that vLLM's LLaVA expects."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    flat, full = "vision_tower.", "vision_tower.vision_model."
    renamed = {
        key.replace(flat, full, 1) if flat in key and full not in key else key: value for key, value in tensors.items()
    }
    save_file(renamed, weights, metadata={"format": "pt"})
