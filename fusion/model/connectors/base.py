"""What a connector is: the way from what the towers see to tokens of the language model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from fusion.model.towers import ViT, tower_class
from schemas.errors import RequestError

if TYPE_CHECKING:
    from fusion.model.configuration import FusionConfig
    from fusion.model.towers import Florence, Towers


class Connector(nn.Module, ABC):
    """One design. It says how large a picture it wants, lets the towers look, and fuses what they saw.

    Attributes:
        name: in `FusionConfig.connector`.
        source: where the design is published; what is here is true to that code.
        tower: the kind of tower that `vision_config` must describe.
        detailed: whether there must be a `detail_config` too.
        takes_boxes: every box given with a picture becomes one token after the picture's own.
        gridded: a picture's tokens lie on a square grid in raster order, so that AnyRes can join those of tiles.
        Options: dataclass of what the publication fixes or varies; its defaults are the published values.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    tower: ClassVar["type[ViT] | type[Florence]"] = ViT
    detailed: ClassVar[bool] = False
    takes_boxes: ClassVar[bool] = False
    gridded: ClassVar[bool] = True

    @dataclass(frozen=True)
    class Options:
        """Nothing to set."""

    def __init__(self, config: "FusionConfig") -> None:
        """Raises RequestError for options and towers that do not go together."""
        super().__init__()
        self.options: Any = self.options_of(config)
        self._check_towers(config)

    @classmethod
    def options_of(cls, config: "FusionConfig") -> Any:
        """Raises RequestError for an option that the connector does not have, or a value that it cannot have."""
        given = config.connector_options or {}
        known = cls.Options.__dataclass_fields__
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise RequestError(
                f"The connector {cls.name} has no option {', '.join(unknown)}. "
                f"It has: {', '.join(known) or 'none'} (connector_options)."
            )
        try:
            return _reader(cls.Options).validate_python(given)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise RequestError(
                f"connector_options.{place} of the connector {cls.name} is {first['input']!r}: {first['msg']}."
            ) from None

    def _check_towers(self, config: "FusionConfig") -> None:
        kind = config.vision_config.model_type
        if tower_class(config.vision_config) is not self.tower:
            raise RequestError(
                f"The connector {self.name} looks through a {self.tower.__name__}, and vision_config describes a "
                f"{kind}. Choose a tower or a connector (vision_config, connector) to go with the other."
            )
        if self.detailed != (config.detail_config is not None):
            raise RequestError(
                f"The connector {self.name} looks through {'two towers' if self.detailed else 'one tower'}, and "
                f"detail_config is {'not ' if self.detailed else ''}given. "
                f"{'Name a timm backbone in it' if self.detailed else 'Leave it out'}."
            )

    def initialise(self) -> None:
        """Give every weight its published start: torch's own of a layer, where a connector says nothing else."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.reset_parameters()

    @classmethod
    @abstractmethod
    def canvas(cls, config: "FusionConfig") -> int:
        """Side in pixels of the square that `forward` takes."""

    @classmethod
    @abstractmethod
    def tokens(cls, config: "FusionConfig") -> int:
        """Visual tokens of one canvas, without those of boxes."""

    @abstractmethod
    def forward(self, towers: "Towers", pixels: Tensor, boxes: Sequence[Tensor] | None = None) -> Sequence[Tensor]:
        """Tokens of each picture.

        Args:
            towers: of the model that this connector belongs to.
            pixels: (n, 3, canvas, canvas), normalised for the towers.
            boxes: for each picture float32 (k, 4): x1, y1, x2, y2 in pixels of the canvas. Only where `takes_boxes`.

        Returns:
            n tensors (tokens, width of the language model); with boxes (tokens + k, width).
        """


@cache
def _reader(options: type) -> TypeAdapter:
    return TypeAdapter(options)
