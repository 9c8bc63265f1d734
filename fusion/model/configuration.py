"""What a fusion model is made of: vision tower(s), a connector, a language model."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto import CONFIG_MAPPING


class FusionConfig(PreTrainedConfig):
    """Configuration of `FusionForConditionalGeneration`.

    Attributes:
        vision_config: configuration, or a dict of one, of the tower: CLIP or SigLIP vision model, or Florence-2 for the
            connector `dbfusion`.
        detail_config: of the second, convolutional tower of `conv_gate` (a timm backbone); None elsewhere.
        text_config: any causal language model of transformers.
        connector: name in `fusion.model.connectors.CONNECTORS`.
        connector_options: fields of that connector's `Options`; what is left out has the published value.
        image_token_id: the token that stands, once for each visual token, where a picture goes.
        image_grid_pinpoints: sizes [height, width] in pixels, multiples of the canvas, that a picture may be tiled to
            (AnyRes of LLaVA-NeXT); None: one canvas a picture.
        tie_word_embeddings: as `text_config` has it; vLLM reads it here.
    """

    model_type = "densefusion"
    sub_configs = {"vision_config": AutoConfig, "detail_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012

    vision_config: Any = None
    detail_config: Any = None
    text_config: Any = None
    connector: str = "mlp"
    connector_options: dict[str, Any] | None = None
    image_token_id: int = 32000
    image_grid_pinpoints: list[list[int]] | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _config(self.vision_config, "clip_vision_model")
        self.text_config = _config(self.text_config, "llama")
        if self.detail_config is not None:
            self.detail_config = _config(self.detail_config, "timm_backbone")
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self.connector_options = dict(self.connector_options or {})
        # Left out, they would be taken from configurations of models that are made already; without an attention's name
        # transformers makes no causal mask.
        for name in ("attn_implementation", "experts_implementation"):
            if kwargs.get(name) is None:
                kwargs[name] = {}
        super().__post_init__(**kwargs)


def _config(given: dict[str, Any] | PreTrainedConfig | None, kind: str) -> PreTrainedConfig:
    if isinstance(given, PreTrainedConfig):
        return given
    values = dict(given or {})
    return CONFIG_MAPPING[values.pop("model_type", kind)](**values)
