"""What several processes share of a model: the settings of FSDP and DeepSpeed for our section."""

from typing import Any

from torch import nn

from fusion.train.section import TrainSection
from schemas.errors import SetupError


def deepspeed_config(section: TrainSection) -> dict[str, Any] | None:
    """DeepSpeed's configuration; `auto` is what transformers fills in from the other settings. None without DeepSpeed.

    The optimizer stays ours, so that each group keeps its rate.

    Raises:
        SetupError: DeepSpeed is not installed.
    """
    if section.sharding not in ("zero2", "zero3"):
        return None
    try:
        import deepspeed  # noqa: F401
    except ImportError:
        raise SetupError(
            f"sharding {section.sharding} needs DeepSpeed, which is not installed here: pip install deepspeed, or set "
            "sharding to fsdp (several GPUs) or none."
        ) from None
    zero: dict[str, Any] = {"overlap_comm": True, "contiguous_gradients": True}
    if section.sharding == "zero2":
        zero |= {"stage": 2, "reduce_bucket_size": "auto"}
    else:
        zero |= {
            "stage": 3,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            # Otherwise a checkpoint holds shards that only DeepSpeed reads.
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": section.precision == "bf16"},
        "fp16": {"enabled": section.precision == "fp16"},
        "gradient_clipping": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
    }


def fsdp_config(section: TrainSection, model: nn.Module) -> dict[str, Any] | None:
    """FSDP's (version 2) as transformers takes it; each repeated block of a tower or the language model is a unit."""
    if section.sharding != "fsdp":
        return None
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": block_classes(model),
        "state_dict_type": "FULL_STATE_DICT",
        "activation_checkpointing": section.gradient_checkpointing,
    }


def block_classes(model: nn.Module) -> list[str]:
    """Names of the classes of which a transformer in the model has a list: its blocks."""
    blocks = {
        type(block).__name__
        for name, blocks in model.named_modules()
        if isinstance(blocks, nn.ModuleList) and name.endswith("layers")
        for block in blocks
    }
    return sorted(blocks)
