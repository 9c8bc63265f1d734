"""Fingerprints: what decides a shard's content, hashed; and what differs between two of them, field by field."""

import hashlib
import json
from typing import Any

from stages.base import Stage

Components = dict[str, Any]

_ABSENT = object()


def canonical(value: Any) -> str:
    """One text for equal JSON values, whatever order their keys came in."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def stage_identity(stage: Stage) -> Components:
    """The part of the components that is the same for all of a stage's shards."""
    return {"version": stage.version, "config": stage.config.decides(), "models": stage.models()}


def with_inputs(identity: Components, inputs: dict[str, str]) -> Components:
    """Components of one shard.

    Args:
        inputs: per upstream stage, a digest of the *content* of what it committed. Content, not commit records:
            an upstream stage that re-runs to the same bytes re-runs nothing below it.
    """
    return {**identity, "inputs": inputs}


def changed_fields(stage: str, old: Components, new: Components) -> list[str]:
    """Dotted names of what differs, as a user would write them in --set where there is such a key.

    `caption.max_tokens` for a config field, `caption.version` for the stage's code, `caption.models.engine` for a
    model, `inputs.select` for an upstream stage.
    """
    fields = [f"{stage}.version"] if old.get("version") != new.get("version") else []
    fields += [f"{stage}.{name}" for name in _differences(old.get("config", {}), new.get("config", {}))]
    fields += [f"{stage}.models.{name}" for name in _differences(old.get("models", {}), new.get("models", {}))]
    fields += [f"inputs.{name}" for name in _shallow(old.get("inputs", {}), new.get("inputs", {}))]
    return fields


def describe_change(stage: str, old: Components, new: Components) -> list[str]:
    """One line a field, `caption.max_tokens: 64 -> 96`."""
    lines = []
    for name in changed_fields(stage, old, new):
        path = name.split(".") if name.startswith("inputs.") else ["config", *name[len(stage) + 1 :].split(".")]
        if name == f"{stage}.version":
            path = ["version"]
        elif name.startswith(f"{stage}.models."):
            path = ["models", name[len(stage) + 8 :]]
        before, after = _lookup(old, path), _lookup(new, path)
        lines.append(f"{name}: {_short(before)} -> {_short(after)}")
    return lines


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        out = []
        for key in sorted(old.keys() | new.keys()):
            out += _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{prefix}.{key}" if prefix else key)
        return out
    return [prefix] if old is not new and old != new else []


def _shallow(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]


def _lookup(value: Any, path: list[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _short(value: Any, limit: int = 60) -> str:
    text = "absent" if value is None else canonical(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
