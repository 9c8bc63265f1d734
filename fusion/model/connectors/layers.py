"""Which of a tower's hidden states an option may name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig

BASE = -2
"""The hidden state that LLaVA-1.5 and every design after it here starts from: what goes into the last block."""


def check_layers(connector: str, layers: Sequence[int], config: "FusionConfig") -> None:
    """Raises RequestError for an index that is none of the tower's hidden states, 0 to its depth."""
    depth = config.vision_config.num_hidden_layers
    wrong = [layer for layer in layers if not -depth - 1 <= layer <= depth]
    if wrong:
        raise RequestError(
            f"The connector {connector} is to read layer {', '.join(map(str, wrong))} (connector_options), and the "
            f"tower of {depth} layers (vision_config) has hidden states 0 to {depth}. Name some of those."
        )
