"""What the demo's experts say of pictures: the preset's own, in this process, without a run."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from experts.base import Context, Expert
from experts.registry import EXPERTS
from pipeline.config import Config, load_config
from pipeline.world import FOLDER
from stages.priors import DecidedPriors

Rows = dict[str, dict[str, Any]]
"""Of one picture: the decided row of every expert, by its name, as `fusion.priors.Priors.of` takes them."""
NOT_SHOWN = ("florence",)
"""Experts of the preset whose priors the captioner's prompt does not show."""


class Perceived:
    """The preset's experts, opened."""

    def __init__(self, config: Config, experts: dict[str, Expert]) -> None:
        self._experts, self._decide = experts, DecidedPriors(config.perceive)

    def of(self, images: Sequence[Image.Image]) -> list[Rows]:
        """Decided rows of every picture (RGB)."""
        measured: list[Context] = [{} for _ in images]
        for name, expert in self._experts.items():
            for row, prior in zip(measured, expert.measure(list(images), measured), strict=True):
                row[name] = {**prior, "error": None}
        return [self._decide.of(row) for row in measured]


@contextlib.contextmanager
def demo_experts(overrides: Sequence[str] = ()) -> Iterator[Perceived]:
    """The demo's experts on the CPU while the context lasts, but those that are not shown to the captioner.

    Args:
        overrides: `key.path=value` on the preset.

    Raises:
        RequestError, SetupError: an override is wrong, a model does not load.
    """
    from demo.weights import make_weights

    off = [f"perceive.{name}=null" for name in NOT_SHOWN]
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as stack:
        make_weights(Path(made) / FOLDER / "weights")
        config = load_config("demo", [*off, *overrides], made)
        experts = {name: EXPERTS[name](section) for name, section in config.perceive.experts("select").items()}
        for expert in experts.values():
            expert.open("cpu")
            stack.callback(expert.close)
        yield Perceived(config, experts)
