"""A small OWLv2."""

from pathlib import Path

from demo.weights.alphabet import clip_vocabulary

SIZE = 224
CONTEXT = 32


def make(folder: Path) -> None:
    """Write model, image processor and tokenizer of an OWLv2 with random weights."""
    import torch
    from transformers import CLIPTokenizer, Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

    vocabulary = clip_vocabulary()
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    end = vocabulary["<|endoftext|>"]
    config = Owlv2Config(
        text_config=tower
        | {
            "hidden_size": 64,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": CONTEXT,
            "bos_token_id": vocabulary["<|startoftext|>"],
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config=tower | {"hidden_size": 96, "image_size": SIZE, "patch_size": 16},
        projection_dim=64,
    )
    torch.manual_seed(0)
    model = Owlv2ForObjectDetection(config)
    spread_heads(model)
    model.save_pretrained(folder)
    Owlv2Processor(
        Owlv2ImageProcessor(size={"height": SIZE, "width": SIZE}),
        CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CONTEXT),
    ).save_pretrained(folder)


def spread_heads(model) -> None:  # type: ignore[no-untyped-def]
    """Give the heads trained-looking outputs.

    The library draws them with a deviation of 1, which saturates boxes at the edges and scores at 0 or 1.
    """
    import torch

    with torch.no_grad():
        for head in (model.box_head, model.objectness_head):
            for layer in (head.dense0, head.dense1, head.dense2):
                layer.weight.normal_(std=0.1)
                layer.bias.zero_()
        # Boxes start at the patch: widen them to a tenth to a half of the side.
        model.box_head.dense2.weight.normal_(std=0.6)
        model.box_head.dense2.bias.copy_(torch.tensor([0.0, 0.0, 1.5, 1.5]))
        head = model.class_head
        head.dense0.weight.normal_(std=0.1)
        head.logit_shift.weight.normal_(std=0.01)
        head.logit_shift.bias.fill_(-0.4)
        head.logit_scale.weight.normal_(std=0.01)
        head.logit_scale.bias.fill_(9.0)
