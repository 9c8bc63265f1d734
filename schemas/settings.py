"""Settings from YAML: a file or one that ships with the package, what it extends, `key.path=value` on top of it."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import ValidationError

from schemas.errors import RequestError
from schemas.section import Section

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Shelf:
    """The YAML files of one kind that ship with the package.

    Attributes:
        package: import package that holds them.
        folder: path in it, with `/`.
        noun: what one of them is called in messages.
        example: an override, for messages.
    """

    package: str
    folder: str
    noun: str
    example: str

    def names(self) -> list[str]:
        """Their names, without the ending."""
        folder = resources.files(self.package).joinpath(self.folder)
        return sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".yaml"))

    def read(self, source: str, overrides: list[str]) -> dict[str, Any]:
        """Values of one of them by name, or of a file; those of what it `extends` lie under its own.

        Raises:
            RequestError: the file is missing or holds no mapping, or an override is no `key.path=value`.
        """
        values = self._read(source)
        for override in overrides:
            self.override(values, override)
        return values

    def override(self, values: dict[str, Any], override: str) -> None:
        """Set one value by `key.path=value`, in place."""
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise RequestError(f"--set takes key.path=value, got `{override}`. Example: --set {self.example}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                place[parent] = {}
            place = place[parent]
        place[last] = value

    def _read(self, source: str) -> dict[str, Any]:
        try:
            values = yaml.safe_load(self._text(source))
        except yaml.YAMLError as error:
            raise RequestError(f"{source} is not valid YAML: {' '.join(str(error).split())}.") from None
        if not isinstance(values, dict):
            raise RequestError(f"{source} must hold a mapping of settings, not {type(values).__name__}.")
        base = values.pop("extends", None)
        return _merge(self._read(base), values) if base is not None else values

    def _text(self, source: str) -> str:
        if source in self.names():
            return resources.files(self.package).joinpath(self.folder, f"{source}.yaml").read_text(encoding="utf-8")
        if Path(source).is_file():
            return Path(source).read_text(encoding="utf-8")
        near = difflib.get_close_matches(source, self.names(), n=1)
        hint = f" Did you mean the {self.noun} {near[0]}?" if near else ""
        raise RequestError(
            f"There is no configuration file {source}, and no {self.noun} of that name.{hint} "
            f"{self.noun.capitalize()}s: {', '.join(self.names())}."
        )


def validated(section: type[S], values: dict[str, Any], source: str) -> S:
    """The section that the values make.

    Raises:
        RequestError: one paragraph over everything that is wrong, each with the key and what would be right.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise RequestError(_explain(error, source, section)) from None


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        out[key] = _merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def _explain(error: ValidationError, source: str, section: type[Section]) -> str:
    parts = []
    for item in error.errors():
        path = [str(step) for step in item["loc"]]
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            known = _known_keys(path[:-1], section)
            near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else f"known keys there: {', '.join(known)}"
            parts.append(f"`{key}` is not a setting ({hint})")
        elif item["type"] == "missing":
            parts.append(f"`{key}` is required")
        else:
            given = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"
            said = item["msg"].removeprefix("Value error, ")
            name = f"`{key}`: " if key else ""
            parts.append(f"{name}{said[0].lower()}{said[1:]}{given}")
    return f"The configuration {source} is not valid: {'; '.join(parts)}."


def _known_keys(path: list[str], section: type[Section]) -> list[str]:
    models = [section]
    for step in path:
        if fields := [model.model_fields[step] for model in models if step in model.model_fields]:
            models = [inner for field in fields for inner in _sections(field.annotation)] or models
        else:  # a place in a list, or a union member's tag in pydantic's path
            models = [model for model in models if _tagged(model, step)] or models
    return sorted({name for model in models for name in model.model_fields})


def _sections(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)


def _tagged(model: type[Section], tag: str) -> bool:
    kinds = (field.annotation for field in model.model_fields.values())
    return any(get_origin(kind) is Literal and tag in get_args(kind) for kind in kinds)
