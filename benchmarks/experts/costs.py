"""What the published models behind the experts cost: parameters, bytes of weights, and GFLOP an image.

    python -m benchmarks.experts.costs [--json] [--expert NAME ...]

Models are built from their published geometry on tensors without memory, so nothing is downloaded and nothing is
computed: torch's FlopCounterMode counts the products of matrices and the convolutions of one forward pass, in which a
multiplication and an addition are two. Attention is counted as the products it consists of. What has no product
(norms, activations, sampling of deformable attention) counts nothing.

`GEOMETRY` says of each model where its sizes are published, and what confirms them. `PUBLISHED` holds counts of
parameters that the publishers state, where one could be found, and tests hold ours against them.
"""

import argparse
import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

from rich.console import Console
from rich.table import Table

from benchmarks.device import PEAK_TFLOPS
from benchmarks.machine import machine

PICTURE = (1224, 1632)
"""Height and width of the picture, px: 4:3, 2 megapixels, as benchmarks.experts has them. Only models that keep a
picture's shape or size see it; most squeeze it to a square."""
TAGS = 100
"""Asked of the open-set detector: `perceive.open_set.max_queries`."""
LINES = 10
"""Of text in the picture, assumed, each 320 px wide at the recogniser's 48."""
ANSWER = 100
"""Tokens of each answer of Florence-2, assumed."""
PROMPTS, BEAMS = 3, 3
"""Asked of Florence-2 by its default settings: caption, text, regions; beams of the search."""
MFU = 0.3
"""Share of a GPU's stated peak that the arithmetic takes; assumed, not measured."""
GPU = "H100"

GEOMETRY = {
    "xinyu1205/recognize-anything-plus-model": "ram/configs/swin/config_swinL_384.json, ram/configs/q2l_config.json, "
    "ram/models/ram_plus.py and ram/data/ram_tag_list.txt of github.com/xinyu1205/recognize-anything@7cb804a",
    "laion/CLIP-ViT-B-16-laion2B-s34B-b88K": "its open_clip_config.json on the hub, which is open_clip's ViT-B-16",
    "ViT-L-14-quickgelu": "open_clip's own model_configs/ViT-L-14-quickgelu.json",
    "google/owlv2-large-patch14-ensemble": "config.json of google/owlv2-large-patch14 on the hub, as long as its "
    "own; its model.safetensors of 1.75 GB in float32 is as many parameters",
    "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det": "get_mm_grounding_dino_config of transformers' "
    "convert_mm_grounding_dino_to_hf.py",
    "PekingU/rtdetr_v2_r101vd": "get_rt_detr_config of transformers' convert_rt_detr_v2_weights_to_hf.py",
    "ustc-community/dfine-large-coco": "get_d_fine_config of transformers' "
    "convert_d_fine_original_pytorch_checkpoint_to_hf.py",
    "ustc-community/dfine-xlarge-coco": "the same",
    "PaddlePaddle/PP-OCRv6_medium_det_safetensors": "NET_CONFIG_DET of PaddleOCR's "
    "ppocr/modeling/backbones/rec_lcnetv4.py; with the kernels of PP-OCRv5_server_det's intraclass blocks it has the "
    "number of values that the hub states, to the last one",
    "PaddlePaddle/PP-OCRv6_small_rec_safetensors": "defaults of transformers' PPOCRV6SmallRecConfig, whose backbone is "
    "NET_CONFIG_REC's small of the same file of PaddleOCR's",
    "depth-anything/Depth-Anything-V2-Small-hf": "config.json as depth-any-canopy-small repeats it; 99.2 MB in float32 "
    "on the hub are as many parameters",
    "depth-anything/Depth-Anything-V2-Base-hf": "config.json as depth-any-canopy-base repeats it; 390 MB in float32",
    "depth-anything/Depth-Anything-V2-Large-hf": "get_dpt_config of transformers' convert_depth_anything_to_hf.py; "
    "671 MB in float16",
    "florence-community/Florence-2-base-ft": "config.json of microsoft/Florence-2-base on the hub; embeddings padded "
    "to a multiple of 64 by transformers' convert_florence2_original_pytorch_to_hf.py",
    "florence-community/Florence-2-large-ft": "text_config of microsoft/Florence-2-large-ft on the hub; an image tower "
    "twice as wide as base's, which gives the 0.77 billion parameters that the page states",
    "Falconsai/nsfw_image_detection": "its config.json, as copies on the hub repeat it",
    "amrul-hzz/watermark_detector": "google/vit-base-patch16-224-in21k, from which its page says it was fine-tuned",
}
PUBLISHED = {
    "google/owlv2-large-patch14-ensemble": 437e6,
    "PekingU/rtdetr_v2_r101vd": 76e6,
    "ustc-community/dfine-xlarge-coco": 63e6,
    "PaddlePaddle/PP-OCRv6_medium_det_safetensors": 21_993_025,
    "depth-anything/Depth-Anything-V2-Small-hf": 24.8e6,
    "depth-anything/Depth-Anything-V2-Base-hf": 97.5e6,
    "depth-anything/Depth-Anything-V2-Large-hf": 335.3e6,
    "florence-community/Florence-2-base-ft": 0.23e9,
    "florence-community/Florence-2-large-ft": 0.77e9,
}


@dataclass(frozen=True)
class Part:
    """Something that a model computes.

    Attributes:
        what: of one of these, in words.
        run: takes the model and computes it once.
        times: how often for an image by the expert's default settings.
        less: what of `run` is not this part; its FLOP are taken off.
        share: `run` computes this many of them at once.
    """

    what: str
    run: Callable[[Any], Any]
    times: int = 1
    less: Callable[[Any], Any] | None = None
    share: int = 1


@dataclass(frozen=True)
class Model:
    """One model of an expert.

    Attributes:
        name: hub id, or open_clip's own name.
        by_values: whether its code asks what a tensor holds, which tensors of torch's meta device cannot say.
    """

    expert: str
    name: str
    build: Callable[[], Any]
    parts: tuple[Part, ...]
    by_values: bool = False


def pixels(height: int, width: int) -> Any:
    import torch

    return torch.empty(1, 3, height, width)


def _forward(height: int, width: int) -> tuple[Part, ...]:
    return (Part("image", lambda model: model(pixel_values=pixels(height, width))),)


def _clip(name: str) -> Any:
    import open_clip

    return open_clip.create_model(name, device="meta")


def _encode_image(side: int) -> tuple[Part, ...]:
    return (Part("image", lambda model: model.encode_image(pixels(side, side))),)


def _ram_plus() -> Any:
    from experts.taggers.ram_plus_model import DESCRIPTIONS, IMAGE_SIZE, Geometry, RamPlus

    swin = {
        "img_size": IMAGE_SIZE,
        "patch_size": 4,
        "embed_dim": 192,
        "depths": (2, 2, 18, 2),
        "num_heads": (6, 12, 24, 48),
        "window_size": 12,
        "mlp_ratio": 4.0,
    }
    return RamPlus(
        Geometry(swin=swin, text=512, hidden=768, inner=3072, layers=2, labels=4585, descriptions=DESCRIPTIONS)
    )


def _owlv2() -> Any:
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 1008,
    }
    return Owlv2ForObjectDetection(Owlv2Config(projection_dim=768, text_config=text, vision_config=vision))


def _owlv2_looks(model: Any) -> None:
    """Tower, boxes, and scores of queries that were embedded before."""
    import torch

    grid, _ = model.image_embedder(pixel_values=pixels(1008, 1008))
    features = grid.flatten(1, 2)
    model.box_predictor(features, grid)
    model.class_predictor(features, torch.empty(1, TAGS, 768))


def _grounding_dino() -> Any:
    from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection, SwinConfig

    swin = SwinConfig(
        image_size=224,
        window_size=7,
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        out_features=["stage2", "stage3", "stage4"],
    )
    return MMGroundingDinoForObjectDetection(MMGroundingDinoConfig(backbone_config=swin, num_feature_levels=4))


def _grounding_dino_looks(model: Any) -> None:
    """One picture of 800 px short side, one sentence of all the tokens that the model reads."""
    import torch

    tokens = torch.ones(1, model.config.max_text_len, dtype=torch.long)
    height, width = 800, 800 * PICTURE[1] // PICTURE[0]
    model(pixel_values=pixels(height, width), input_ids=tokens, attention_mask=tokens, token_type_ids=tokens * 0)


def _rt_detr_v2() -> Any:
    from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    resnet = RTDetrResNetConfig(depths=[3, 4, 23, 3], out_features=["stage2", "stage3", "stage4"])
    return RTDetrV2ForObjectDetection(
        RTDetrV2Config(
            backbone_config=resnet,
            encoder_ffn_dim=2048,
            encoder_hidden_dim=384,
            decoder_in_channels=[384] * 3,
            num_labels=80,
        )
    )


def _d_fine(xlarge: bool) -> Any:
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    hgnet = HGNetV2Config(
        hidden_sizes=[256, 512, 1024, 2048],
        stem_channels=[3, 32, 64] if xlarge else [3, 32, 48],
        stage_in_channels=[64 if xlarge else 48, 128, 512, 1024],
        stage_mid_channels=[64, 128, 256, 512] if xlarge else [48, 96, 192, 384],
        stage_out_channels=[128, 512, 1024, 2048],
        stage_num_blocks=[1, 2, 5, 2] if xlarge else [1, 1, 3, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[6, 6, 6, 6],
        out_indices=[2, 3, 4],
    )
    width = {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384] * 3} if xlarge else {}
    return DFineForObjectDetection(
        DFineConfig(
            backbone_config=hgnet,
            encoder_in_channels=[512, 1024, 2048],
            decoder_n_points=[3, 6, 3],
            decoder_layers=6,
            hidden_expansion=1.0,
            num_labels=80,
            **width,
        )
    )


def _text_detector() -> Any:
    from transformers import AutoConfig, AutoModelForObjectDetection

    def stage(before: int, after: int, blocks: int) -> list[list[Any]]:
        """The first block brings the width from `before` to `after`; every second one squeezes and excites."""
        first = [3, before, after, 1 if before == after else 2, before == after]
        return [first, *([3, after, after, 1, (i % 2 == 1) == (before != after)] for i in range(1, blocks))]

    backbone = AutoConfig.for_model(
        "pp_lcnet_v4",
        stem_channels=[3, 64, 128],
        block_configs=[stage(128, 128, 2), stage(128, 256, 3), stage(256, 512, 5), stage(512, 896, 3)],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    kernels: dict[str, list[Any]] = {"reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0]}
    for ratio, size in (("long", 7), ("mid", 5), ("short", 3)):
        around = size // 2
        kernels |= {
            f"vertical_long_to_small_conv_{ratio}ratio": [[size, 1], 1, [around, 0]],
            f"horizontal_small_to_long_conv_{ratio}ratio": [[1, size], 1, [0, around]],
            f"symmetric_conv_long_{ratio}ratio": [size, 1, around],
        }
    return AutoModelForObjectDetection.from_config(
        AutoConfig.for_model(
            "pp_ocrv6_medium_det",
            backbone_config=backbone,
            intraclass_block_config=kernels,
            scale_factor_list=[1, 2, 4, 8],
            kernel_list=[3, 2, 2],
        )
    )


def _text_recogniser() -> Any:
    from transformers import AutoConfig, AutoModelForTextRecognition

    return AutoModelForTextRecognition.from_config(AutoConfig.for_model("pp_ocrv6_small_rec"))


def _depth_anything(width: int, heads: int, layers: int, taps: list[int], fusion: int, neck: list[int]) -> Any:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        image_size=518,
        patch_size=14,
        out_indices=taps,
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    return DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=width,
            fusion_hidden_size=fusion,
            neck_hidden_sizes=neck,
            patch_size=14,
        )
    )


def _florence(width: int, heads: int, layers: int, tower: tuple[int, ...], groups: tuple[int, ...]) -> Any:
    from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration, Florence2VisionConfig

    text = BartConfig(
        vocab_size=51328,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=1024,
    )
    vision = Florence2VisionConfig(embed_dim=tower, num_heads=groups, num_groups=groups, projection_dim=width)
    return Florence2ForConditionalGeneration(
        Florence2Config(text_config=text.to_dict(), vision_config=vision.to_dict())
    )


_READ = 577 + 13
"""Positions that Florence-2's encoder reads: the image's, and the tokens of a caption's question."""


def _florence_reads(model: Any) -> None:
    import torch

    model.get_encoder()(inputs_embeds=torch.empty(1, _READ, model.config.text_config.d_model))


def _florence_writes(tokens: int, model: Any) -> None:
    """So many tokens of every beam, all at once; generate writes them one by one, from the keys of those before."""
    import torch

    width = model.config.text_config.d_model
    # A mask of four dimensions is taken as it is; of others transformers asks what they hold.
    written = model.model.language_model.decoder(
        inputs_embeds=torch.empty(BEAMS, tokens, width),
        attention_mask=torch.empty(BEAMS, 1, tokens, tokens),
        encoder_hidden_states=torch.empty(BEAMS, _READ, width),
        use_cache=False,
    )
    model.lm_head(written.last_hidden_state)


def _florence_asked(model: Any) -> None:
    _florence_reads(model)
    _florence_writes(1, model)


_FLORENCE = (
    Part("image", lambda model: model.get_image_features(pixel_values=pixels(768, 768))),
    Part(f"prompt, with the first token of {BEAMS} beams", _florence_asked, PROMPTS),
    Part(
        f"further token of {BEAMS} beams",
        partial(_florence_writes, ANSWER),
        PROMPTS * (ANSWER - 1),
        less=partial(_florence_writes, 1),
        share=ANSWER - 1,
    ),
)


def _vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_labels=2))


def _multiple(length: int, step: int) -> int:
    return round(length / step) * step


_SCANNED = _forward(_multiple(PICTURE[0], 32), _multiple(PICTURE[1], 32))
_SHAPED = _forward(518, _multiple(518 * PICTURE[1] // PICTURE[0], 14))
_DEPTH_ANYTHING = {
    "Small": (384, 6, 12, [3, 6, 9, 12], 64, [48, 96, 192, 384]),
    "Base": (768, 12, 12, [3, 6, 9, 12], 128, [96, 192, 384, 768]),
    "Large": (1024, 16, 24, [5, 12, 18, 24], 256, [256, 512, 1024, 1024]),
}
_FLORENCES = {
    "base": (768, 12, 6, (128, 256, 512, 1024), (4, 8, 16, 32)),
    "large": (1024, 16, 12, (256, 512, 1024, 2048), (8, 16, 32, 64)),
}

MODELS = (
    Model(
        "tags",
        "xinyu1205/recognize-anything-plus-model",
        _ram_plus,
        (Part("image", lambda model: model(pixels(384, 384))),),
    ),
    Model("tags", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", partial(_clip, "ViT-B-16"), _encode_image(224)),
    Model(
        "open_set",
        "google/owlv2-large-patch14-ensemble",
        _owlv2,
        (Part(f"image, {TAGS} tags embedded before", _owlv2_looks),),
    ),
    Model(
        "open_set",
        "openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det",
        _grounding_dino,
        (Part("image and sentence of 256 tokens", _grounding_dino_looks),),
        by_values=True,
    ),
    Model("closed_set", "PekingU/rtdetr_v2_r101vd", _rt_detr_v2, _forward(640, 640)),
    Model("closed_set", "ustc-community/dfine-large-coco", partial(_d_fine, False), _forward(640, 640)),
    Model("closed_set", "ustc-community/dfine-xlarge-coco", partial(_d_fine, True), _forward(640, 640)),
    Model("ocr", "PaddlePaddle/PP-OCRv6_medium_det_safetensors", _text_detector, _SCANNED),
    Model(
        "ocr",
        "PaddlePaddle/PP-OCRv6_small_rec_safetensors",
        _text_recogniser,
        (Part("line of 48 x 320 px", lambda model: model(pixel_values=pixels(48, 320)), LINES),),
    ),
    *(
        Model("depth", f"depth-anything/Depth-Anything-V2-{size}-hf", partial(_depth_anything, *sizes), _SHAPED)
        for size, sizes in _DEPTH_ANYTHING.items()
    ),
    *(
        Model("florence", f"florence-community/Florence-2-{size}-ft", partial(_florence, *sizes), _FLORENCE)
        for size, sizes in _FLORENCES.items()
    ),
    Model("aesthetic", "ViT-L-14-quickgelu", partial(_clip, "ViT-L-14-quickgelu"), _encode_image(224)),
    Model("nsfw", "Falconsai/nsfw_image_detection", _vit, _forward(224, 224)),
    Model("watermark", "amrul-hzz/watermark_detector", _vit, _forward(224, 224)),
)


@contextlib.contextmanager
def _no_memory(by_values: bool) -> Iterator[None]:
    """Tensors that have a shape and nothing else; where code goes by values, fake ones, whose values are unknowns.

    Fake tensors must not get into a library's caches: there a real model of the same process would find them.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    nowhere = FakeTensorMode(shape_env=ShapeEnv()) if by_values else torch.device("meta")
    # transformers checks the arithmetic of its shapes in tensors, which here hold nothing.
    unchecked = mock.patch.dict(os.environ, TRANSFORMERS_DISABLE_TORCH_CHECK="1")
    with nowhere, torch.no_grad(), unchecked:
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries warn that weights are random, which they are meant to be."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def flop(run: Callable[[Any], Any], model: Any) -> float:
    """Floating point operations of `run(model)`, by torch's FlopCounterMode."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run(model)
    return float(counter.get_total_flops())


def cost(one: Model) -> dict[str, Any]:
    """Figures of one model.

    Returns:
        `parameters`, `values` (parameters, and the statistics of batch norms, which files of weights hold too),
        `half_bytes` of the parameters in bfloat16 or float16, `gflop_per_image` by the default settings, and `parts`.
    """
    with _quiet(), _no_memory(one.by_values):
        model = one.build().eval()
        gflop = []
        for part in one.parts:
            once = flop(part.run, model) - (0.0 if part.less is None else flop(part.less, model))
            gflop.append(once / part.share / 1e9)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    statistics = [buffer for name, buffer in model.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return {
        "expert": one.expert,
        "model": one.name,
        "geometry": GEOMETRY[one.name],
        "parameters": parameters,
        "values": parameters + sum(buffer.numel() for buffer in statistics),
        "half_bytes": 2 * parameters,
        "gflop_per_image": sum(once * part.times for once, part in zip(gflop, one.parts, strict=True)),
        "parts": [
            {"of": part.what, "gflop": once, "times": part.times} for once, part in zip(gflop, one.parts, strict=True)
        ],
    }


def gpu_hours(
    gflop_per_image: float, images: int = 1_000_000, tflops: float = PEAK_TFLOPS[GPU], mfu: float = MFU
) -> float:
    """Hours of one GPU for so many images. Arithmetic: nothing of it was measured.

    Args:
        tflops: the GPU's stated peak.
        mfu: share of it that the model reaches.
    """
    return gflop_per_image * images / (tflops * 1e3 * mfu) / 3600


def measure(models: Sequence[Model] = MODELS) -> dict[str, Any]:
    """Every model's costs, and what they assume."""
    costs = [cost(one) for one in models]
    for one in costs:
        one["gpu_hours_per_million_images"] = gpu_hours(one["gflop_per_image"])
    return {
        "benchmark": "experts.costs",
        "machine": machine("torch", "transformers", "timm", "open_clip_torch"),
        "setting": {
            "picture": list(PICTURE),
            "tags": TAGS,
            "lines": LINES,
            "tokens_per_answer": ANSWER,
            "prompts": PROMPTS,
            "beams": BEAMS,
            "gpu": GPU,
            "peak_tflops": PEAK_TFLOPS[GPU],
            "mfu": MFU,
        },
        "costs": costs,
    }


def _table(answer: dict[str, Any]) -> Table:
    setting = answer["setting"]
    hours = f"{setting['gpu']} hours a million images, at {setting['mfu']:.0%} of {setting['peak_tflops']} TFLOP/s"
    table = Table("expert", "model", "parameters", "MB in half", "GFLOP an image", hours)
    for one in answer["costs"]:
        parts = [f"{part['gflop']:,.1f} per {part['of']}" for part in one["parts"]]
        several = f" ({'; '.join(parts)})" if len(parts) > 1 or one["parts"][0]["times"] > 1 else ""
        table.add_row(
            one["expert"],
            one["model"],
            f"{one['parameters'] / 1e6:.1f} M",
            f"{one['half_bytes'] / 1e6:,.0f}",
            f"{one['gflop_per_image']:,.0f}{several}",
            f"{one['gpu_hours_per_million_images']:.2f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.experts.costs", description="What the published models behind the experts cost."
    )
    experts = tuple(dict.fromkeys(model.expert for model in MODELS))
    command.add_argument("--json", action="store_true", help="print JSON in place of a table")
    command.add_argument("--expert", nargs="+", choices=experts, default=experts, help="only these")
    given = command.parse_args(arguments)
    answer = measure([model for model in MODELS if model.expert in given.expert])
    if given.json:
        print(json.dumps(answer, indent=2))
    else:
        Console(width=200).print(_table(answer))


if __name__ == "__main__":
    main()
