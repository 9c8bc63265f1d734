"""The fusion model: towers and connector make tokens of a picture, a causal language model reads them and writes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel, initialization
from transformers.modeling_outputs import CausalLMOutputWithPast

from fusion.model.anyres import canvases, check_grid, joined
from fusion.model.configuration import FusionConfig
from fusion.model.connectors import Connector, connector_of
from fusion.model.towers import Towers


class FusionVision(nn.Module):
    """From pixels to tokens of the language model: all of the model that training and serving share.

    Attributes:
        image_newline: (width,), after each row of the joined tiles of a picture; only with AnyRes. Starts as LLaVA's
            (haotian-liu/LLaVA `llava/model/llava_arch.py`), normal with deviation width ** -0.5.

    Raises:
        RequestError: parts that do not go together.
    """

    def __init__(self, config: FusionConfig, towers: Towers | None = None) -> None:
        super().__init__()
        check_grid(config)
        self.config = config
        self.towers = Towers(config) if towers is None else towers
        self.connector = connector_of(config.connector)(config)
        if config.image_grid_pinpoints:
            self.image_newline = nn.Parameter(torch.empty(config.text_config.hidden_size))
            self.initialise()

    def initialise(self) -> None:
        if self.config.image_grid_pinpoints:
            initialization.normal_(self.image_newline, std=len(self.image_newline) ** -0.5)

    def forward(
        self,
        pixel_values: Tensor,
        image_sizes: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Tokens of each picture: (tokens, width of the language model).

        Args:
            pixel_values: (n, 3, canvas, canvas); with AnyRes the canvases of all pictures one after the other, of each
                the whole picture first and then its tiles in raster order.
            image_sizes: int (pictures, 2), height and width in pixels before any scaling; needed with AnyRes.
            boxes: of each picture (k, 4), x1, y1, x2, y2 in whole pixels of the canvas; the connector gets float32.
        """
        if boxes is not None:
            boxes = [own.float() for own in boxes]
        tokens = self.connector.forward(self.towers, pixel_values, boxes)  # past hooks: see `_tokens` below
        if not self.config.image_grid_pinpoints:
            return list(tokens)
        assert image_sizes is not None
        return joined(tokens, image_sizes.tolist(), self.config, self.image_newline)


class FusionPreTrainedModel(PreTrainedModel):
    """What transformers wants to know of the family."""

    config: FusionConfig
    config_class = FusionConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        fresh = not getattr(module, "_is_hf_initialized", False)
        super()._initialize_weights(module, is_custom_code)
        # Visited after its layers, to which transformers gave a start of its own. Loaded weights stay as they are. (Not
        # in _init_weights, which transformers keeps from modules outside of it that hold no weights but their parts'.)
        if fresh and isinstance(module, Connector | FusionVision):
            module.initialise()


class FusionForConditionalGeneration(FusionPreTrainedModel, GenerationMixin):
    """A language model that sees.

    Attributes:
        vision: `FusionVision`.
        language_model: the causal language model, head included.
    """

    def __init__(
        self, config: FusionConfig, towers: Towers | None = None, language_model: PreTrainedModel | None = None
    ) -> None:
        super().__init__(config)
        self.vision = FusionVision(config, towers)
        self.language_model = (
            AutoModelForCausalLM.from_config(config.text_config) if language_model is None else language_model
        )
        self.post_init()

    def train(self, mode: bool = True) -> "FusionForConditionalGeneration":
        """As of any module; a tower of which nothing is trained stays in evaluation mode, as its publishers run it."""
        super().train(mode)
        for tower in (self.vision.towers.vision, self.vision.towers.detail):
            if tower is not None and not any(parameter.requires_grad for parameter in tower.parameters()):
                tower.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        boxes: Tensor | None = None,
        box_counts: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As any causal language model of transformers; what pictures do not decide goes to it.

        Args:
            input_ids: int64 (batch, length); `image_token_id` stands once for each visual token.
            pixel_values, image_sizes: as `FusionVision.forward` takes them, of all pictures of the batch.
            boxes: int64 (all boxes of the batch, 4), x1, y1, x2, y2 in pixels of the canvas.
            box_counts: int64 (pictures,), how many of them are each picture's.

        Raises:
            ValueError: the text has another number of image tokens than the pictures make.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if labels is not None:  # nothing is written on; and a block that is computed again would fill the cache twice
            kwargs.setdefault("use_cache", False)
        if pixel_values is not None:
            apart = None if boxes is None or box_counts is None else boxes.split(box_counts.tolist())
            seen = self._tokens(pixel_values, image_sizes, apart).to(inputs_embeds.dtype)
            places = torch.eq(input_ids, self.config.image_token_id).unsqueeze(-1)
            if int(places.sum()) != len(seen):
                raise ValueError(
                    f"the text has {int(places.sum())} image tokens, the pictures make {len(seen)}: "
                    "was it tokenised by this model's processor, and cut nowhere inside a picture?"
                )
            inputs_embeds = inputs_embeds.masked_scatter(places, seen)
        elif self.training and labels is not None:
            # Processes that share gradients or weights wait for one another in every module, text-only batch or not.
            inputs_embeds = inputs_embeds + 0 * self._blank().to(inputs_embeds.dtype)
        return self.language_model(inputs_embeds=inputs_embeds, attention_mask=attention_mask, labels=labels, **kwargs)

    def _blank(self) -> Tensor:
        """What the vision part makes of a black picture, as one number."""
        side = connector_of(self.config.connector).canvas(self.config)
        size = torch.tensor([[side, side]])
        weight = next(self.vision.parameters())
        pixels = torch.zeros(canvases((side, side), self.config), 3, side, side, device=weight.device)
        boxes = torch.zeros(1, 4, device=weight.device)
        return self._tokens(pixels, size, [boxes]).sum()

    def _tokens(self, pixel_values: Tensor, image_sizes: Tensor | None, boxes: Sequence[Tensor] | None) -> Tensor:
        """Tokens of all pictures, one picture after the other.

        By `forward`, past the hooks of modules that give a tensor for each picture: ZeRO-3 counts them, and processes
        whose batches have different numbers of pictures would wait for one another for ever.
        """
        return torch.cat(self.vision.forward(pixel_values, image_sizes, boxes))

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        pictures = {name: kwargs.pop(name, None) for name in ("pixel_values", "image_sizes", "boxes", "box_counts")}
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs |= pictures
        return inputs
