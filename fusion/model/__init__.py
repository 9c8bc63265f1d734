"""The family of fusion models: one configuration, one model, one processor; a connector a file."""


def register() -> None:
    """Let transformers' Auto classes find the family. Safe to call twice."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

    from fusion.model.configuration import FusionConfig
    from fusion.model.image_processing import FusionImageProcessor
    from fusion.model.modeling import FusionForConditionalGeneration
    from fusion.model.processing import FusionProcessor

    AutoConfig.register(FusionConfig.model_type, FusionConfig, exist_ok=True)
    AutoImageProcessor.register(FusionConfig, slow_image_processor_class=FusionImageProcessor, exist_ok=True)
    AutoModelForImageTextToText.register(FusionConfig, FusionForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(FusionConfig, FusionProcessor, exist_ok=True)


def register_vllm() -> None:
    """vLLM's plugin, which every process of vLLM runs before it reads a configuration; see `fusion.model.vllm`."""
    from vllm import ModelRegistry

    register()
    # By name: the class is imported where a model of the family is served.
    ModelRegistry.register_model("FusionForConditionalGeneration", "fusion.model.vllm:FusionForConditionalGeneration")
