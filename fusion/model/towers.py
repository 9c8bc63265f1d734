"""The vision towers of a fusion model, and the few views of them that connectors ask for."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig


def patch_grid(config: PreTrainedConfig) -> int:
    """Patches along one side of a ViT's picture."""
    return config.image_size // config.patch_size


def is_siglip(config: PreTrainedConfig) -> bool:
    """Whether a ViT is a SigLIP: no class token, no layer norm before its blocks."""
    return config.model_type == "siglip_vision_model"


def florence_stride(config: PreTrainedConfig) -> int:
    """Pixels of a picture between two tokens of a Florence-2."""
    return math.prod(config.vision_config.patch_stride)


class ViT(nn.Module):
    """A CLIP or SigLIP vision model."""

    def __init__(self, config: PreTrainedConfig, model: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.model = AutoModel.from_config(config) if model is None else model
        self._is_clip = not is_siglip(config)

    @property
    def side(self) -> int:
        """Pixels of the picture that it takes."""
        return self.model.config.image_size

    def states(self, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Hidden states as transformers counts them: 0 goes into the first block, n is what the n-th block gives.

        Args:
            pixels: (n, 3, side, side).
            layers: which; from -depth - 1 to depth, in any order.

        Returns:
            A tensor (n, patches, width) for each: raster order, no class token, no layer norm after the last block.
        """
        depth = self.model.config.num_hidden_layers
        wanted = [layer % (depth + 1) for layer in layers]
        # Block by block: what nobody asks for is neither kept (of many windows it fills a GPU) nor, after the last that
        # somebody does, computed.
        state = self.model.embeddings(pixels)
        if self._is_clip:
            state = self.model.pre_layrnorm(state)
        kept = {0: state}
        for number, block in enumerate(self.model.encoder.layers[: max(wanted)], 1):
            state = block(state, None)
            if number in wanted:
                kept[number] = state
        return [kept[layer][:, 1:] if self._is_clip else kept[layer] for layer in wanted]


class ConvNet(nn.Module):
    """A timm backbone, seen stage by stage."""

    def __init__(self, config: PreTrainedConfig, model: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.model = AutoModel.from_config(config) if model is None else model

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        return list(self.model._backbone.feature_info.channels())

    @property
    def strides(self) -> list[int]:
        """Pixels of the picture between two places of each stage's map."""
        return list(self.model._backbone.feature_info.reduction())

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """What each stage gives, raw: (n, channels, height, width); of ConvNeXt at 1/4, 1/8, 1/16, 1/32 of the picture.

        Args:
            pixels: (n, 3, height, width).
        """
        return list(self.model(pixels.to(next(self.parameters()).dtype)).feature_maps)


class Florence(nn.Module):
    """Florence-2 without its decoder: an image tower and the encoder that reads a prompt beside the picture.

    Source: the use that Florence-VL makes of it (arXiv 2412.04424, section 3).
    """

    def __init__(self, config: PreTrainedConfig, model: PreTrainedModel | None = None) -> None:
        super().__init__()
        whole = AutoModel.from_config(config) if model is None else model
        self.vision_tower = whole.vision_tower
        self.multi_modal_projector = whole.multi_modal_projector
        self.encoder = whole.language_model.encoder

    def depth(self, pixels: Tensor) -> Tensor:
        """The projected image tower: (n, 1 + patches, width), the mean token first."""
        return self.multi_modal_projector(self.vision_tower(pixels).last_hidden_state)

    def breadth(self, depth: Tensor, prompt: Sequence[int], pad: int | None = None) -> Tensor:
        """The encoder's states at the picture's tokens, the prompt after them: as `depth`.

        Args:
            prompt: token ids, as long as they are padded.
            pad: an id that is not attended to; None attends to all.
        """
        ids = torch.tensor([prompt], device=depth.device).expand(len(depth), -1)
        mask = None
        if pad is not None:
            seen = torch.ones(depth.shape[:2], dtype=torch.long, device=depth.device)
            mask = torch.cat([seen, (ids != pad).long()], dim=1)
        embedded = torch.cat([depth, self.encoder.embed_tokens(ids).to(depth.dtype)], dim=1)
        states = self.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        return states[:, : depth.shape[1]]


class Towers(nn.Module):
    """The towers of one model.

    Attributes:
        vision: a `ViT`, or a `Florence`.
        detail: a `ConvNet`, where the configuration has one.
    """

    def __init__(self, config: "FusionConfig", **models: PreTrainedModel | None) -> None:
        super().__init__()
        self.vision = tower_of(config.vision_config, models.get("vision"))
        self.detail = tower_of(config.detail_config, models.get("detail")) if config.detail_config is not None else None


_KINDS: dict[str, type[ViT] | type[ConvNet] | type[Florence]] = {
    "clip_vision_model": ViT,
    "siglip_vision_model": ViT,
    "timm_backbone": ConvNet,
    "florence2": Florence,
}


def tower_class(config: PreTrainedConfig) -> type[ViT] | type[ConvNet] | type[Florence]:
    """Raises RequestError for a kind of model that no connector knows how to look through."""
    try:
        return _KINDS[config.model_type]
    except KeyError:
        raise RequestError(
            f"A tower of kind {config.model_type} is not known. There are: {', '.join(_KINDS)}."
        ) from None


def tower_of(config: Any, model: PreTrainedModel | None = None) -> ViT | ConvNet | Florence:
    """The tower that a configuration describes, with random weights or those of `model`.

    Raises:
        RequestError: as `tower_class`.
    """
    return tower_class(config)(config, model)


def stages_of(config: Any) -> tuple[list[int], list[int]]:
    """Channels and strides of the stages that a timm backbone gives, read off a copy without memory for its weights.

    Raises:
        RequestError: timm does not know the backbone.
    """
    try:
        with torch.device("meta"):
            tower = ConvNet(config)
    except RuntimeError as error:
        raise RequestError(f"The timm backbone {config.backbone} (detail_config) cannot be made: {error}.") from error
    return tower.widths, tower.strides
