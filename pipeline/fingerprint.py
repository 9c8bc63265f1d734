"""Fingerprints: what decides a shard's content, hashed; and what differs between two of them, field by field."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from stages.base import Stage

Components = dict[str, Any]

ABSENT = object()

_DIGEST = re.compile(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})\b")
"""A git commit or a sha256; people tell them apart by the first twelve digits."""


def canonical(value: Any) -> str:
    """One text for equal JSON values, whatever order their keys came in."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def stage_identity(stage: Stage) -> Components:
    """The part of the components that is the same for all of a stage's shards."""
    return {
        "version": stage.version,
        "config": stage.config.decides(),
        "models": stage.identity,
        "perceive": stage.decisions(),
    }


def with_inputs(identity: Components, inputs: dict[str, str]) -> Components:
    """Components of one shard.

    Args:
        inputs: per upstream stage, a digest of the *content* of what it committed. Content, not commit records:
            an upstream stage that re-runs to the same bytes re-runs nothing below it.
    """
    return {**identity, "inputs": inputs}


@dataclass(frozen=True)
class Change:
    """One thing that differs between two components, named as in --set where there is such a key.

    `caption.max_tokens` for a config field, `caption.version` for the stage's code, `embed.model` for the identity of
    what lies where the config points, `perceive.tags.threshold` for what is applied when an expert's table is read,
    `inputs.select` for an upstream stage.
    """

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if isinstance(self.before, list) and isinstance(self.after, list):
            added = [item for item in self.after if item not in self.before]
            removed = [item for item in self.before if item not in self.after]
            if added or removed:
                said = {"added": added, "removed": removed}
                return f"{self.name}: " + ", ".join(f"{word} {_short(items)}" for word, items in said.items() if items)
        return f"{self.name}: {_short(self.before)} -> {_short(self.after)}"


def changes(stage: str, old: Components, new: Components) -> list[Change]:
    """What differs, field by field; empty exactly when the fingerprints are equal."""
    return [
        *_differences(f"{stage}.version", old.get("version"), new.get("version")),
        *_differences(stage, old.get("config", {}), new.get("config", {})),
        *_differences(stage, old.get("models", {}), new.get("models", {})),
        *_differences("perceive", old.get("perceive", {}), new.get("perceive", {})),
        *_differences("inputs", old.get("inputs", {}), new.get("inputs", {})),
    ]


def _differences(name: str, old: Any, new: Any) -> list[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [c for key in keys for c in _differences(f"{name}.{key}", old.get(key, ABSENT), new.get(key, ABSENT))]
    return [Change(name, old, new)] if old is not new and old != new else []


def _short(value: Any, limit: int = 60) -> str:
    text = "absent" if value is ABSENT else _DIGEST.sub(r"\1", canonical(value))
    return text if len(text) <= limit else text[: limit - 3] + "..."
