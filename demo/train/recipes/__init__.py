"""The recipes: one module a model, named as its command, each with one subclass of `Recipe`."""

import importlib
import pkgutil
from typing import Any

from demo.train.base import Recipe


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def recipe(name: str) -> type[Recipe[Any]]:
    """The recipe of a name; imports its libraries.

    Raises:
        KeyError: there is none of that name.
    """
    if name not in names():
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{name}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Recipe) and getattr(value, "name", None) == name:
            return value
    raise TypeError(f"{module.__name__} has no subclass of Recipe whose name is {name!r}")
