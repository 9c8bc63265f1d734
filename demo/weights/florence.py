"""A small Florence-2 with a byte-level BART tokenizer that knows the thousand location tokens."""

import string
from pathlib import Path

from demo.train.tokenizer import bart_vocabulary

SIZE = 96
STRIDE = 32
BINS = 1000
LETTERS_OVER_LOCATIONS = 1.5  # by trial: words with boxes behind some of them


def make(folder: Path) -> None:
    """Write model, image processor and tokenizer of a Florence-2 with random weights."""
    import torch
    from transformers import (
        BartConfig,
        BartTokenizer,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        Florence2VisionConfig,
    )

    tokenizer = BartTokenizer(vocab=bart_vocabulary(), merges=[], extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens([f"<loc_{i}>" for i in range(BINS)])
    tokens = 1 + (SIZE // STRIDE) ** 2
    config = Florence2Config(
        vision_config=Florence2VisionConfig(
            depths=(1, 1, 1, 1),
            embed_dim=(16, 24, 32, 48),
            num_heads=(1, 2, 2, 4),
            num_groups=(1, 2, 2, 4),
            window_size=4,
            projection_dim=64,
            drop_path_rate=0.0,
        ),
        text_config=BartConfig(
            vocab_size=len(tokenizer),
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            max_position_embeddings=512,
        ).to_dict(),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(config)
    loosen_tongue(model, tokenizer)
    # As the released checkpoints; it also keeps a random decoder from saying one token for ever.
    model.generation_config.no_repeat_ngram_size = 3
    model.save_pretrained(folder)
    Florence2Processor(
        CLIPImageProcessor(
            size={"height": SIZE, "width": SIZE},
            do_center_crop=False,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
            image_seq_length=tokens,
        ),
        tokenizer,
        num_additional_image_tokens=1,
        post_processor_config={
            "pure_text": {},
            "description_with_bboxes": {},
            "ocr": {"AREA_THRESHOLD": 0.0},
        },
    ).save_pretrained(folder)


def loosen_tongue(model, tokenizer) -> None:  # type: ignore[no-untyped-def]
    """Make answers differ between images, of letters and locations, so that some of them parse.

    With the library's small deviation every answer is the end token. Tied embeddings of zero are never said.
    """
    import torch

    letters = tokenizer.convert_tokens_to_ids([*string.ascii_lowercase, "\u0120"])  # the byte alphabet's space
    speech = {*letters, *tokenizer.convert_tokens_to_ids([f"<loc_{i}>" for i in range(BINS)])}
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.normal_(std=0.25)
        silent = [token for token in range(len(tokenizer)) if token not in speech]
        model.get_input_embeddings().weight[silent] = 0.0
        model.get_input_embeddings().weight[letters] *= LETTERS_OVER_LOCATIONS
