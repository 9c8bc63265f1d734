"""Fusion models out of what there is: parts with a fresh connector, a stock LLaVA, or a checkpoint of the family."""

import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from fusion.model import register
from fusion.model.configuration import FusionConfig
from fusion.model.image_processing import Fit
from fusion.model.modeling import FusionForConditionalGeneration
from fusion.model.processing import FusionProcessor
from fusion.model.towers import Towers
from schemas.errors import RequestError, SetupError
from schemas.section import ModelRef

IMAGE_TOKEN = "<image>"
_MULTIPLE = 64
"""Rows of an embedding that has to grow are a multiple of this, as tensor cores like it."""
_STAGES = [0, 1, 2, 3]
_LONGEST_REASON = 300


@dataclass(frozen=True)
class Assembled:
    """A model in float32, on the CPU, and its processor without a chat template where it is new."""

    model: FusionForConditionalGeneration
    processor: FusionProcessor


@dataclass(frozen=True)
class Images:
    """How pictures are prepared; None: as the parts have it.

    Attributes:
        fit, mean, std, max_boxes: of `FusionImageProcessor`.
    """

    fit: Fit | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    max_boxes: int = 100


def from_parts(
    vision: ModelRef,
    text: ModelRef,
    detail: ModelRef | None = None,
    connector: str = "mlp",
    connector_options: dict[str, Any] | None = None,
    image_grid_pinpoints: list[list[int]] | None = None,
    images: Images | None = None,
    seed: int = 0,
) -> Assembled:
    """Pretrained towers and language model with a fresh connector.

    The tokenizer gets `<image>` where it lacks it, and the language model a row for it where there is none to spare.

    Args:
        vision: a CLIP or SigLIP model, whole or its vision half, or a Florence-2.
        text: a causal language model with its tokenizer.
        detail: a backbone of timm: its name there (`timm/` before it or not), or a folder of timm or transformers.
        seed: of the connector's weights.

    Raises:
        SetupError: weights that do not load.
        RequestError: parts that do not go together.
    """
    images = images or Images()
    with _loading("model.text", text):
        tokenizer = AutoTokenizer.from_pretrained(text.model, revision=text.revision)
        language_model = AutoModelForCausalLM.from_pretrained(text.model, revision=text.revision, dtype=torch.float32)
    _make_room(language_model, tokenizer)
    towers = {"vision": _tower(vision), "detail": _detail(detail) if detail is not None else None}
    config = FusionConfig(
        vision_config=towers["vision"].config,
        detail_config=towers["detail"].config if towers["detail"] is not None else None,
        text_config=language_model.config,
        connector=connector,
        connector_options=connector_options,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_grid_pinpoints=image_grid_pinpoints,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _composed(config, towers, language_model, tokenizer, images, vision)


def from_llava(ref: ModelRef, images: Images | None = None) -> Assembled:
    """A LLaVA-1.5 or LLaVA-NeXT of transformers as a model of the family, weight by weight; connector `mlp`.

    Raises:
        SetupError: weights that do not load.
        RequestError: a model of another kind, or of a variant that the family does not have.
    """
    images = images or Images()
    register()  # so that a model of the family is told from one that nobody knows
    with _loading("model.llava", ref):
        given = AutoConfig.from_pretrained(ref.model, revision=ref.revision)
    if given.model_type not in ("llava", "llava_next"):
        raise RequestError(f"{ref.model} is a {given.model_type}, no llava or llava_next (setting model.llava).")
    if not isinstance(given.vision_feature_layer, int) or given.vision_feature_select_strategy != "default":
        raise RequestError(
            f"{ref.model} takes the layers {given.vision_feature_layer} with the strategy "
            f"{given.vision_feature_select_strategy}; `mlp` takes one layer without its class token (model.llava)."
        )
    with _loading("model.llava", ref):
        tokenizer = AutoTokenizer.from_pretrained(ref.model, revision=ref.revision)
        stock = AutoModelForImageTextToText.from_pretrained(ref.model, revision=ref.revision, dtype=torch.float32)
    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(given.text_config)
    language_model.model, language_model.lm_head = stock.model.language_model, stock.lm_head
    language_model.generation_config = stock.generation_config
    _make_room(language_model, tokenizer)
    config = FusionConfig(
        vision_config=given.vision_config,
        text_config=language_model.config,
        connector="mlp",
        connector_options={"layer": given.vision_feature_layer},
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_grid_pinpoints=[list(point) for point in getattr(given, "image_grid_pinpoints", None) or []] or None,
    )
    assembled = _composed(config, {"vision": stock.model.vision_tower}, language_model, tokenizer, images, ref)
    projector, own = stock.model.multi_modal_projector, assembled.model.vision
    with torch.no_grad():
        for mine, theirs in ((0, projector.linear_1), (2, projector.linear_2)):
            own.connector.projector[mine].load_state_dict(theirs.state_dict())
        if config.image_grid_pinpoints:
            own.image_newline.copy_(stock.model.image_newline)
    return assembled


def from_checkpoint(ref: ModelRef, images: Images | None = None) -> Assembled:
    """A saved model of the family and its processor; `images` changes how pictures are prepared from now on.

    Raises:
        SetupError: weights that do not load, or not all of them.
    """
    register()
    with _loading("model.checkpoint", ref):
        model, found = FusionForConditionalGeneration.from_pretrained(
            ref.model, revision=ref.revision, dtype=torch.float32, output_loading_info=True
        )
        processor = FusionProcessor.from_pretrained(ref.model, revision=ref.revision)
        _refuse_missing(found)
    own = processor.image_processor
    if images is not None:
        own.fit = images.fit or own.fit
        own.image_mean, own.image_std = images.mean or own.image_mean, images.std or own.image_std
        own.max_boxes = images.max_boxes
    return Assembled(model, processor)


def _composed(
    config: FusionConfig, towers: dict[str, Any], language_model: Any, tokenizer: Any, images: Images, vision: ModelRef
) -> Assembled:
    model = FusionForConditionalGeneration(config, Towers(config, **towers), language_model)
    model.generation_config = language_model.generation_config
    stated = _stated_normalisation(vision)
    normalisation = {
        name: value
        for name in ("image_mean", "image_std")
        if (value := getattr(images, name.removeprefix("image_")) or stated.get(name)) is not None
    }
    processor = FusionProcessor.of_model(
        config, tokenizer, fit=images.fit or "pad", max_boxes=images.max_boxes, **normalisation
    )
    return Assembled(model, processor)


def _make_room(language_model: Any, tokenizer: Any) -> None:
    """Let the tokenizer know the image token and a padding token, and the language model every token."""
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    tokenizer.padding_side = "left"  # answers of several rows are written after their ends
    if len(tokenizer) > language_model.config.vocab_size:
        language_model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=_MULTIPLE)


def _tower(ref: ModelRef) -> Any:
    """The vision half of a model, or all of it where it has no halves or is a Florence-2."""
    with _loading("model.vision", ref):
        config = AutoConfig.from_pretrained(ref.model, revision=ref.revision)
        if config.model_type != "florence2":
            config = getattr(config, "vision_config", config)
        model, found = AutoModel.from_pretrained(
            ref.model, revision=ref.revision, config=config, dtype=torch.float32, output_loading_info=True
        )
        _refuse_missing(found)
        return model


def _detail(ref: ModelRef) -> Any:
    """A backbone of timm with the maps of its four stages.

    Weights are loaded after transformers has made its wrapper, which would reset the statistics of batch norms.
    """
    import timm
    from transformers import TimmBackbone, TimmBackboneConfig

    with _loading("model.detail", ref):
        folder = Path(ref.model)
        stated = json.loads((folder / "config.json").read_text()) if folder.is_dir() else {}
        if stated.get("model_type") == "timm_backbone":
            model = TimmBackbone(TimmBackboneConfig(backbone=stated["backbone"], out_indices=_STAGES))
            missing, _ = model.load_state_dict(_weights(folder), strict=False)
            _refuse_missing({"missing_keys": missing})
            return model
        name = stated.get("architecture") or ref.model.removeprefix("timm/")
        source = {"file": str(folder / "model.safetensors")} if stated else {}
        if ref.revision is not None:
            source = {"hf_hub_id": f"timm/{name}@{ref.revision}"}
        model = TimmBackbone(TimmBackboneConfig(backbone=name, out_indices=_STAGES))
        pretrained = timm.create_model(
            name, pretrained=True, features_only=True, out_indices=_STAGES, pretrained_cfg_overlay=source
        )
        model._backbone.load_state_dict(pretrained.state_dict())
        return model


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def _stated_normalisation(ref: ModelRef) -> dict[str, Any]:
    """What the image processor that lies beside a tower says of mean and deviation; nothing where there is none."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        found = cached_file(
            ref.model,
            name,
            revision=ref.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        if found:
            stated = json.loads(Path(found).read_text(encoding="utf-8"))
            return stated.get("image_processor", stated)
    return {}


def _refuse_missing(found: dict[str, Any]) -> None:
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"it lacks weights: {', '.join(missing[:3])}{more}")


@contextmanager
def _loading(setting: str, ref: ModelRef) -> Iterator[None]:
    """Turn whatever a library raises while it loads weights into the one paragraph a user needs."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the half of a model that is left out is reported key by key
    try:
        yield
    except Exception as error:
        revision = f" at revision {ref.revision}" if ref.revision else ""
        raise SetupError(
            f"{setting} {ref.model}{revision} could not be loaded: {type(error).__name__}: "
            f"{textwrap.shorten(str(error), _LONGEST_REASON, placeholder=' ...').rstrip('.')}. Set {setting}.model to "
            "a folder that holds the model, or to a hub id that this machine can reach (HF_HOME names the cache, "
            "HF_TOKEN opens gated models)."
        ) from error
    finally:
        transformers_logging.set_verbosity(level)
