"""The experts by name: the built-in ones, and those that installed packages register.

Adding one here is its file and one line below; from outside it is an entry point of the group ENTRY_POINTS.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from experts.aesthetic import Aesthetic
from experts.base import Expert
from experts.closed_set import ClosedSet
from experts.depth import Depth
from experts.florence import Florence
from experts.nsfw import Nsfw
from experts.ocr import Ocr
from experts.open_set import OpenSet
from experts.tags import Tags
from experts.watermark import Watermark
from schemas.errors import RequestError

ENTRY_POINTS = "densefusion.experts"
BUILT_IN: tuple[type[Expert], ...] = (
    *(Tags, OpenSet, ClosedSet, Ocr, Depth, Florence),
    *(Aesthetic, Nsfw, Watermark),
)
"""In the order in which priors are shown and their stages run; one that needs another comes after it in any case."""


def _installed(point: EntryPoint) -> type[Expert]:
    """Raises RequestError where an entry point does not lead to an expert."""
    package = point.dist.name if point.dist is not None else "an installed package"
    try:
        loaded: Any = point.load()
    except Exception as error:
        raise RequestError(
            f"The expert {point.name} of {package} ({point.value}) cannot be imported: {type(error).__name__}: {error}"
            f". Mend it, or uninstall {package}."
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Expert)) or loaded.name != point.name:
        raise RequestError(
            f"The entry point {point.name} of {package} ({point.value}) in the group {ENTRY_POINTS} must name a "
            f"subclass of experts.base.Expert whose `name` is {point.name!r}."
        )
    return loaded


def find_experts() -> dict[str, type[Expert]]:
    """Every expert by name.

    Raises:
        RequestError: an entry point cannot be loaded, or two experts have one name.
    """
    found: dict[str, type[Expert]] = {}
    installed = [_installed(point) for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name)]
    for expert in (*BUILT_IN, *installed):
        if expert.name in found:
            raise RequestError(
                f"Two experts are called {expert.name}: {_place(found[expert.name])} and {_place(expert)}. "
                "Give one another name, or uninstall its package."
            )
        found[expert.name] = expert
    return found


def _place(expert: type[Expert]) -> str:
    return f"{expert.__module__}.{expert.__qualname__}"


EXPERTS: dict[str, type[Expert]] = find_experts()
