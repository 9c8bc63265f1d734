"""A small RT-DETRv2 with a ResNet backbone of its own."""

from pathlib import Path

SIZE = 160
LABELS = (
    "person", "bicycle", "car", "dog", "cat", "bird", "chair", "table", "cup", "bottle", "book", "clock", "tree",
    "boat", "house", "sign",
)  # fmt: skip


def make(folder: Path) -> None:
    """Write model and image processor of an RT-DETRv2 with random weights."""
    import torch
    from transformers import RTDetrImageProcessor, RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    torch.manual_seed(0)
    # "basic" layers need hidden_sizes[0] to be embedding_size.
    backbone = RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrV2Config(
        backbone_config=backbone,
        encoder_in_channels=[24, 32, 48],
        encoder_hidden_dim=64,
        encoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_in_channels=[64, 64, 64],
        d_model=64,
        decoder_ffn_dim=128,
        decoder_attention_heads=4,
        decoder_layers=2,
        num_queries=40,
        num_denoising=0,
        hidden_expansion=0.5,
        id2label=dict(enumerate(LABELS)),
        label2id={label: i for i, label in enumerate(LABELS)},
    )
    model = RTDetrV2ForObjectDetection(config)
    spread_heads(model)
    model.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)


def spread_heads(model) -> None:  # type: ignore[no-untyped-def]
    """Scores that pass a half for a few queries, of several labels, and boxes of many sizes.

    Fresh heads all say the prior, one in the number of labels, and leave every box at its anchor.
    """
    import torch

    with torch.no_grad():
        for scores, boxes in zip(model.model.decoder.class_embed, model.model.decoder.bbox_embed, strict=True):
            scores.weight.normal_(std=0.25)
            scores.bias.fill_(-4.0)
            boxes.layers[-1].weight.normal_(std=0.2)
            boxes.layers[-1].bias.copy_(torch.tensor([0.0, 0.0, 0.8, 0.8]))
