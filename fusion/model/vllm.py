"""The fusion models in vLLM: its own language model behind the towers and the connector that training has.

`fusion.model.register_vllm` makes it known, so that `vllm serve CHECKPOINT` needs no flag. Boxes of a connector that
takes them come with a request as `mm_processor_kwargs={"boxes": [[[x1, y1, x2, y2], ...]]}`, a list for each picture,
0 to 1 of its width and height; a server takes them over HTTP with `--trust-request-mm-kwargs`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchFeature
from transformers.initialization import no_init_weights
from vllm.config import VllmConfig
from vllm.config.multimodal import MultiModalDummyOptions
from vllm.exceptions import VLLMValidationError
from vllm.inputs import MultiModalDataDict, MultiModalHashes, MultiModalInput
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import AutoWeightsLoader, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.hasher import MultiModalHasher
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.parse import MultiModalDataItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    ProcessorInputs,
    PromptReplacement,
    PromptUpdate,
    TimingContext,
)
from vllm.sequence import IntermediateTensors

from fusion.model.configuration import FusionConfig
from fusion.model.image_processing import check_boxes
from fusion.model.modeling import FusionVision
from fusion.model.processing import FusionProcessor


class FusionProcessingInfo(BaseProcessingInfo):
    """What vLLM asks of a checkpoint before it sees a picture."""

    def get_hf_config(self) -> FusionConfig:
        return self.ctx.get_hf_config(FusionConfig)

    def get_hf_processor(self, **kwargs: object) -> FusionProcessor:
        # The options of a request are of the call, not of the processor.
        return self.ctx.get_hf_processor(FusionProcessor)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        return {"image": None}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        processor = self.get_hf_processor()
        return {"image": processor.image_tokens(processor.largest_size(), self.most_boxes())}

    def most_boxes(self) -> int:
        """Box tokens that one picture may have."""
        images = self.get_hf_processor().image_processor
        return images.max_boxes if images.takes_boxes else 0


class FusionDummyInputsBuilder(BaseDummyInputsBuilder[FusionProcessingInfo]):
    """Pictures that make as many tokens as any, for measuring memory."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return self.info.get_hf_processor().image_token * mm_counts.get("image", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: MultiModalDummyOptions
    ) -> MultiModalDataDict:
        height, width = self.info.get_hf_processor().largest_size()
        return {
            "image": self._get_dummy_images(
                width=width,
                height=height,
                num_images=mm_counts.get("image", 0),
                overrides=mm_options.get("image"),
            )
        }


class FusionMultiModalProcessor(BaseMultiModalProcessor[FusionProcessingInfo]):
    """Lets `FusionProcessor` look at the pictures, and puts as many image tokens as it counts into the prompt."""

    def apply(self, inputs: ProcessorInputs, timing_ctx: TimingContext) -> MultiModalInput:
        """Raises VLLMValidationError (HTTP 400) for boxes that are none, and for image tokens without a picture."""
        pictures = inputs.mm_data_items.get_all_counts().get("image", 0)
        places = inputs.prompt.count(self.info.get_hf_config().image_token_id)
        if places != pictures:
            raise VLLMValidationError(
                f"The prompt has {places} image tokens and the request {pictures} pictures: each picture needs one.",
                parameter="prompt",
            )
        if "boxes" in inputs.hf_processor_mm_kwargs:
            try:
                check_boxes(inputs.hf_processor_mm_kwargs["boxes"], pictures)
            except ValueError as error:
                raise VLLMValidationError(f"mm_processor_kwargs: {error}", parameter="mm_processor_kwargs") from None
        return super().apply(inputs, timing_ctx)

    def get_dummy_inputs(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: MultiModalDummyOptions
    ) -> ProcessorInputs:
        inputs = super().get_dummy_inputs(seq_len, mm_counts, mm_options)
        if boxes := self.info.most_boxes():
            inputs.hf_processor_mm_kwargs = {"boxes": [[[0.0, 0.0, 1.0, 1.0]] * boxes] * mm_counts.get("image", 0)}
        return inputs

    def _get_mm_hashes(self, inputs: ProcessorInputs) -> MultiModalHashes:
        """A picture is the same only with the same boxes, and whatever boxes the others of its prompt have."""
        boxes = inputs.hf_processor_mm_kwargs.get("boxes")
        if boxes is None:
            return super()._get_mm_hashes(inputs)
        others = {name: value for name, value in inputs.hf_processor_mm_kwargs.items() if name != "boxes"}
        plain = super()._get_mm_hashes(_with_options(inputs, others))
        algorithm = self.info.ctx.get_mm_config().mm_hasher_algorithm
        return {
            "image": [
                MultiModalHasher.hash_kwargs(algorithm, image=one, boxes=own)
                for one, own in zip(plain["image"], boxes, strict=True)
            ]
        }

    def _get_cache_missing_processor_kwargs(
        self, inputs: ProcessorInputs, mm_is_cached: dict[str, list[bool]]
    ) -> Mapping[str, object]:
        options = dict(inputs.hf_processor_mm_kwargs)
        if "boxes" in options:
            cached = mm_is_cached["image"]
            options["boxes"] = [own for own, here in zip(options["boxes"], cached, strict=True) if not here]
        return options

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        processor = self.info.get_hf_processor()
        sizes = hf_inputs["image_sizes"].tolist() if "image_sizes" in hf_inputs else []
        canvases = torch.tensor([processor.canvases((height, width)) for height, width in sizes], dtype=torch.long)
        fields = {
            "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", canvases),
            "image_sizes": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }
        if "box_counts" in hf_inputs:
            fields["boxes"] = MultiModalFieldConfig.flat_from_sizes("image", hf_inputs["box_counts"])
            fields["box_counts"] = MultiModalFieldConfig.batched("image", keep_on_cpu=True)
        return fields

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        processor = self.info.get_hf_processor()
        token = self.info.get_hf_config().image_token_id

        def tokens(item: int) -> list[int]:
            made = out_mm_kwargs["image"][item].get_data()
            height, width = made["image_sizes"].tolist()
            return [token] * processor.image_tokens((height, width), int(made.get("box_counts", 0)))

        return [PromptReplacement(modality="image", target=[token], replacement=tokens)]


@MULTIMODAL_REGISTRY.register_processor(
    FusionMultiModalProcessor, info=FusionProcessingInfo, dummy_inputs=FusionDummyInputsBuilder
)
class FusionForConditionalGeneration(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """The served model; its parameters have the names that `fusion.model.modeling` gives them.

    Every rank of tensor or pipeline parallelism holds the whole of `vision`. LoRA adapters reach the language model.

    Attributes:
        vision: `FusionVision`, in the engine's dtype.
        language_model: vLLM's model of `text_config`.
    """

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality.startswith("image"):
            return "<image>"
        raise ValueError(f"A fusion model takes pictures, not {modality}.")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: FusionConfig = vllm_config.model_config.hf_config
        self.config = config
        self.multimodal_config = vllm_config.model_config.multimodal_config
        self.configure_mm_token_handling(config.text_config.vocab_size, [config.image_token_id])
        with self._mark_tower_model(vllm_config, "image"), no_init_weights():
            # A tower's configuration may name a dtype of its own.
            self.vision = FusionVision(config).to(vllm_config.model_config.dtype)
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(
        self,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        boxes: Tensor | None = None,
        box_counts: Tensor | None = None,
        **_: Any,
    ) -> list[Tensor]:
        """Tokens of each picture (tokens, width of the language model); arguments as `FusionProcessor` makes them."""
        if pixel_values is None:
            return []
        apart = None if boxes is None or box_counts is None else boxes.split(box_counts.tolist())
        return self.vision(pixel_values, image_sizes, apart)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> Tensor | IntermediateTensors:
        """Hidden states (tokens, width) of the last block, or what the next stage of the pipeline needs."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        return self.language_model.compute_logits(hidden_states)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights)

    def get_mm_mapping(self) -> MultiModelKeys:
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector="vision.connector", tower_model="vision.towers"
        )


def _with_options(inputs: ProcessorInputs, options: Mapping[str, object]) -> ProcessorInputs:
    return ProcessorInputs(
        inputs.prompt,
        inputs.mm_data_items,
        inputs.mm_uuid_items,
        hf_processor_mm_kwargs=options,
        media_io_kwargs=inputs.media_io_kwargs,
        cache=inputs.cache,
    )
